"""Projected gradient descent: the one loop that perturbs images, for every defense and every evaluation attack.

A caller hands it the images that move and an objective, a function of their embeddings, to be minimised. Whatever
stays fixed is embedded once, by the caller, and held by the objective.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from colotride.distributed.shards import SINGLE_PROCESS, ProcessGroup
from colotride.models import EmbeddingModel
from colotride.settings import Fraction, Settings

Objective = Callable[[Float[Tensor, "images dim"]], Float[Tensor, ""]]


@dataclass(frozen=True)
class Budget:
    """What one attack may spend: epsilon and step size in pixel units (pixels lie in [0, 1]), and its steps."""

    epsilon: float
    step_size: float
    steps: int


class PGDSettings(Settings):
    """The PGD schedule: radius, steps, step size and how the step size grows over the epochs (Appendix C)."""

    epsilon: Fraction = Field(default=8 / 255, ge=0, le=1)
    """Radius of the L-infinity ball, in pixel units."""
    step_size: Fraction = Field(default=1 / 255, gt=0, le=1)
    """Step size alpha at full strength, in pixel units."""
    steps: int = Field(default=16, ge=1, le=1000)
    """Steps per perturbation."""
    ramp: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the growth of the step size over the epochs."""
    ramp_length: Fraction = Field(default=1.0, gt=0, le=1)
    """Share of the epochs after which the step size is at full strength."""

    ramp_from_zero: bool = False
    """Grow by e / E from no perturbation in the first epoch (the released code), instead of by (e + 1) / E."""

    def budget(self, epoch: int, epochs: int) -> Budget:
        """The budget of one epoch: alpha_e = alpha ramp(e / E) (Appendix C).

        Args:
            epoch: counted from 0; the ramp sees e + 1, so that the first epoch is perturbed too, unless it starts from
                zero.
            epochs: E, the whole run's.
        """
        done = epoch if self.ramp_from_zero else epoch + 1
        progress = min(1.0, done / (epochs * self.ramp_length))
        strength = {
            "constant": 1.0,
            "linear": progress,
            "cosine": (1 - math.cos(math.pi * progress)) / 2,
        }[self.ramp]
        return Budget(self.epsilon, self.step_size * strength, self.steps)


@contextmanager
def frozen(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Freeze a model: evaluation mode (fixed BatchNorm statistics) and no gradients for its weights.

    The one place where the fast form of a network is chosen. The former mode of every submodule and every
    `requires_grad` is restored on leaving.

    Yields:
        The map from images to embeddings to use meanwhile: `EmbeddingModel.still`, or the model itself.
    """
    # A frozen TorchScript module has no mode.
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield model.inference_forward() if isinstance(model, EmbeddingModel) else model
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def perturb(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    objective: Objective,
    budget: Budget,
    start: Float[Tensor, "images channels height width"] | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Float[Tensor, "images channels height width"]:
    """Move images inside their epsilon-ball so that an objective of their embeddings falls.

    Repeats x <- clip_[0,1]( clip_{x0 +- eps}( x - alpha sign(grad) ) ). Only the images that are given are embedded
    and differentiated; no weight gradient is computed. An image whose gradient is 0 (the objective is saturated)
    stays where it is, which is how an attack stops by itself, without asking the device. On a CPU the steps that are
    left are skipped once every image is saturated.

    Args:
        model: maps pixels in [0, 1] to embeddings; used in evaluation mode, whatever mode it is in.
        images: the clean images x0, pixels in [0, 1].
        objective: maps the embeddings of the moving images to the scalar to be minimised.
        budget: radius, step size and steps.
        start: where to start instead of at `images`; projected into the ball and the pixel range first.
        group: the processes whose images one objective is a function of; they take their steps together.

    Returns:
        The perturbed images, detached, within epsilon of `images` and within [0, 1].
    """
    images = images.detach()
    if budget.epsilon == 0 or budget.steps == 0:
        return images.clone()
    lower = (images - budget.epsilon).clamp_(min=0)
    upper = (images + budget.epsilon).clamp_(max=1)
    moving = images.clone() if start is None else torch.clamp(start.detach(), lower, upper)
    with frozen(model) as embed, torch.enable_grad():
        for _ in range(budget.steps):
            moving.requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(embed(moving)), moving)
            # Where nothing moves nothing ever will. Only a CPU is asked: a GPU would have to be waited for.
            if gradient.device.type == "cpu" and not group.any(bool(gradient.any()), gradient.device):
                return moving.detach()
            moving = moving.detach().sub_(gradient.sign_(), alpha=budget.step_size).clamp_(lower, upper)
    return moving
