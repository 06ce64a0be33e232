"""How weights are fitted: optimiser, epochs, margin and miner."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from colotride.errors import ModelError
from colotride.fine_tuning import parameter_groups
from colotride.geometry import Metric
from colotride.losses import LossName
from colotride.mining import MinerName
from colotride.settings import Settings


class TrainingSettings(Settings):
    """Adam, as in the paper and in RobRank."""

    epochs: int = Field(default=100, ge=1)
    """Length of the run."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Adam's step size."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on: as it is, or down to 0 along half a cosine."""
    weight_decay: float = Field(default=4e-4, ge=0)
    """L2 penalty, added to the gradient."""
    weight_average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights that is validated and saved, such as 0.99; 0 for the last weights."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate from each block to the one before it: below 1, the first layers learn slowest."""
    margin: float = Field(default=0.2, gt=0, le=2)
    """Margin of the triplet loss (Eq. 1) and, to start with, width of the semi-hard band."""
    miner: MinerName = "semi-hard"
    """How negatives are chosen."""
    metric: Metric = "euclidean"
    """Distance in mining, losses, objectives and diagnostics; evaluations rank by the Euclidean one."""
    loss: LossName = "triplet"
    """Base loss on the perturbed triplets."""
    clean_weight: float = Field(default=0.0, ge=0, lt=1)
    """Share of the base loss on the clean triplets: 0 trains on the perturbed ones alone."""
    weight_perturbation: float = Field(default=0.0, ge=0, lt=1)
    """Adversarial weight perturbation: share of its length by which a weight tensor is moved to raise the loss, such as
    0.005, for a second pass in which it is trained; 0 for none."""


def learning_rate_factor(schedule: Literal["constant", "cosine"], done: float) -> float:
    """What the learning rate is multiplied by.

    Args:
        schedule: see `TrainingSettings`.
        done: share of the run's batches that are trained, in [0, 1).
    """
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam over all weights of a model that are trained, updated in one pass over the memory.

    With a layer decay below 1 the last layers learn at the learning rate, and each block at the decay times the rate of
    the one after it; see `colotride.fine_tuning.parameter_groups`.

    Raises:
        ModelError: a layer decay below 1 for a network without blocks.
    """
    groups = [list(model.parameters())]
    if settings.layer_decay < 1:
        groups = [group for group in parameter_groups(model) if group]
        if len(groups) == 1:
            raise ModelError(
                f"training.layer_decay {settings.layer_decay:g}: the network has no blocks to tell apart; set it to 1"
            )
    trained = [
        {"params": chosen, "lr": settings.learning_rate * settings.layer_decay**depth}
        for depth, group in enumerate(reversed(groups))
        if (chosen := [parameter for parameter in group if parameter.requires_grad])
    ]
    return torch.optim.Adam(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
