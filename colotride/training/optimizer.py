"""How weights are fitted: optimiser, epochs, margin and miner."""

import torch
from pydantic import Field
from torch import nn

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
    weight_decay: float = Field(default=4e-4, ge=0)
    """L2 penalty, added to the gradient."""
    margin: float = Field(default=0.2, gt=0, le=2)
    """Margin of the triplet loss (Eq. 1) and, to start with, width of the semi-hard band."""
    miner: MinerName = "semi-hard"
    """How negatives are chosen."""
    metric: Metric = "euclidean"
    """Distance in mining, losses, objectives and diagnostics; evaluations rank by the Euclidean one."""
    loss: LossName = "triplet"
    """Base loss on the perturbed triplets."""


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam over all weights of a model, updated in one pass over the memory."""
    return torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
