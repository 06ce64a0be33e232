"""Projected gradient descent: the one loop that perturbs images, for every defense and every evaluation attack.

A caller hands it the images that move and an objective, a function of their embeddings, to be minimised. Whatever
stays fixed is embedded once, by the caller, and held by the objective. How an image moves when its gradient is known is
an update rule: steps of one size (`FixedSteps`, the default), or those of `colotride.apgd`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from colotride.distributed.shards import SINGLE_PROCESS, ProcessGroup
from colotride.models import EmbeddingModel
from colotride.pgd_settings import Budget, Norm

Objective = Callable[[Float[Tensor, "images dim"]], Float[Tensor, "*images"]]
"""From embeddings to what is minimised: each image's own loss, or one loss for all of them."""

MIN_RECORDED_STEPS = 3
"""The first step is taken and recorded, which asks the host for it twice: with fewer steps there is nothing to gain."""


@dataclass(frozen=True)
class Ball:
    """The images within epsilon of the clean ones whose pixels lie in [0, 1]."""

    images: Float[Tensor, "images channels height width"]
    """The clean ones."""
    epsilon: float
    norm: Norm
    lower: Tensor
    upper: Tensor
    """Ends of every pixel's range; where the norm is l2 those of all pixels, 0 and 1."""

    @classmethod
    def around(cls, images: Float[Tensor, "images channels height width"], epsilon: float, norm: Norm) -> "Ball":
        """The ball of this radius around clean images."""
        if norm == "l2":
            return cls(images, epsilon, norm, torch.zeros_like(images), torch.ones_like(images))
        return cls(images, epsilon, norm, (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1))

    def project_(self, moved: Tensor) -> Tensor:
        """Bring images back into the ball, in place: clip every pixel (linf), or shorten the change, then clip (l2).

        Clean pixels lie in [0, 1], so that clipping only shortens a change further.
        """
        if self.norm == "l2":
            change = moved - self.images
            torch.add(self.images, change * (self.epsilon / lengths(change).clamp_min(1e-12)).clamp_max(1), out=moved)
        return moved.clamp_(self.lower, self.upper)

    def direction_(self, gradient: Tensor) -> Tensor:
        """The direction of steepest ascent of length 1 in the ball's norm, in place: the sign, or the unit vector.

        An image whose gradient is 0 has no direction: 0.
        """
        if self.norm == "linf":
            return gradient.sign_()
        # Twice, because the square of a small gradient is 0 in float32.
        gradient.div_(gradient.flatten(1).abs().amax(dim=1).clamp_min(1e-38)[:, None, None, None])
        return gradient.div_(lengths(gradient).clamp_min(1e-12))


def lengths(changes: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images 1 1 1"]:
    """Euclidean length of every image's change."""
    return torch.linalg.vector_norm(changes.flatten(1), dim=1)[:, None, None, None]


class UpdateRule(Protocol):
    """How images move; an object serves one perturbation."""

    def step(
        self,
        moving: Float[Tensor, "images channels height width"],
        embeddings: Float[Tensor, "images dim"],
        losses: Float[Tensor, "*images"],
        gradient: Float[Tensor, "images channels height width"],
    ) -> Float[Tensor, "images channels height width"]:
        """Where to go next; the tensors are detached, and may be overwritten."""

    def can_move(self, gradient: Float[Tensor, "images channels height width"]) -> bool:
        """Whether any image can still move, with this gradient where it is now."""

    def result(
        self, moving: Float[Tensor, "images channels height width"], evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Float[Tensor, "images channels height width"]:
        """The perturbed images, after the last step.

        Args:
            moving: where the last step led.
            evaluate: the embeddings and losses there, by one more forward pass.
        """


class FixedSteps:
    """Projected gradient descent: x <- project(x - alpha direction(grad)), and the last x is the result."""

    def __init__(self, ball: Ball, step_size: float) -> None:
        """Start a perturbation.

        Args:
            ball: that the images stay in.
            step_size: alpha, in the ball's norm.
        """
        self._ball, self._step_size = ball, step_size

    def step(self, moving: Tensor, embeddings: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        """See `UpdateRule`."""
        return self._ball.project_(moving.sub_(self._ball.direction_(gradient), alpha=self._step_size))

    def can_move(self, gradient: Tensor) -> bool:
        """See `UpdateRule`."""
        return bool(gradient.any())

    def result(self, moving: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """See `UpdateRule`."""
        return moving


class SteppingBack(FixedSteps):
    """Steps of one size; where the last one reached an objective's stop, it is shortened to where that just holds.

    An objective that stops at 0, such as Eq. 10, gives a small step no reason to go on, but cannot keep a large one from
    going too far. The length of the last step is halved towards the stop, by forward passes alone. Objectives that are
    still above 0, or have no stop, are left as they are.
    """

    def __init__(self, ball: Ball, step_size: float, halvings: int) -> None:
        """Start a perturbation.

        Args:
            ball: that the images stay in.
            step_size: alpha, in the ball's norm.
            halvings: at least 1; the result is within 2^-halvings of the last step behind the stop.
        """
        super().__init__(ball, step_size)
        self._halvings = halvings
        self._before: Tensor | None = None

    def step(self, moving: Tensor, embeddings: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        """See `UpdateRule`."""
        self._before = moving.clone()
        return super().step(moving, embeddings, losses, gradient)

    def result(self, moving: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """See `UpdateRule`."""
        if self._before is None:
            return moving
        stopped = evaluate(moving)[1].sum() <= 0
        # Only a CPU is asked: a GPU would have to be waited for.
        if stopped.device.type == "cpu" and not stopped:
            return moving
        below, above = torch.zeros_like(stopped, dtype=moving.dtype), torch.ones_like(stopped, dtype=moving.dtype)
        for _ in range(self._halvings):
            middle = (below + above) / 2
            enough = evaluate(torch.lerp(self._before, moving, middle))[1].sum() <= 0
            below, above = torch.where(enough, below, middle), torch.where(enough, middle, above)
        return torch.lerp(self._before, moving, torch.where(stopped, above, torch.ones_like(above)))


def steps_of(ball: Ball, budget: Budget) -> FixedSteps:
    """The update rule of a budget."""
    if budget.step_back:
        return SteppingBack(ball, budget.step_size, budget.step_back)
    return FixedSteps(ball, budget.step_size)


@contextmanager
def frozen(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Freeze a model: evaluation mode (fixed BatchNorm statistics) and no gradients for its weights.

    The one place where the fast form of a network is chosen. The former mode of every submodule and every
    `requires_grad` is restored on leaving.

    Yields:
        The map from images to embeddings to use meanwhile: `EmbeddingModel.inference_forward`, or the model itself.
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
    rule: Callable[[Ball, Budget], UpdateRule] = steps_of,
    *,
    recorded: bool = False,
) -> Float[Tensor, "images channels height width"]:
    """Move images inside their epsilon-ball so that an objective of their embeddings falls.

    Repeats x <- clip_[0,1]( clip_{x0 +- eps}( x - alpha sign(grad) ) ), or another update rule. Only the images that are
    given are embedded and differentiated; no weight gradient is computed. An image whose gradient is 0 (the objective is
    saturated) stays where it is, which is how an attack stops by itself, without asking the device. On a CPU the steps
    that are left are skipped once every image is saturated.

    Args:
        model: maps pixels in [0, 1] to embeddings; used in evaluation mode, whatever mode it is in.
        images: the clean images x0, pixels in [0, 1].
        objective: maps the embeddings of the moving images to the losses whose sum is minimised.
        budget: radius, norm, step size and steps.
        start: where to start instead of at `images`; projected into the ball (unless the budget does not project) and
            the pixel range first.
        group: the processes whose images one objective is a function of; they take their steps together.
        rule: makes the update rule of this perturbation.
        recorded: whether a step may be recorded and replayed where the model does so (`colotride.step_graphs`): the
            objective is the same function in every step, and neither it nor the rule decides anything in Python.

    Returns:
        The perturbed images, detached, within epsilon of `images` (where the budget projects) and within [0, 1].
    """
    images = images.detach()
    if budget.epsilon == 0 or budget.steps == 0:
        return images.clone()
    ball = Ball.around(images, budget.epsilon if budget.project else math.inf, budget.norm)
    update = rule(ball, budget)
    moving = images.clone() if start is None else ball.project_(start.detach().clone())
    with frozen(model) as embed:

        def evaluate(moved: Tensor) -> tuple[Tensor, Tensor]:
            embeddings = embed(moved)
            return embeddings, objective(embeddings)

        def step(at: Tensor) -> Tensor | None:
            leaf = at.detach().requires_grad_(True)
            with torch.enable_grad():
                embeddings, losses = evaluate(leaf)
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
            # Where nothing moves nothing ever will. Only a CPU is asked: a GPU would have to be waited for.
            if gradient.device.type == "cpu" and not group.any(update.can_move(gradient), gradient.device):
                return None
            return update.step(at, embeddings.detach(), losses.detach(), gradient)

        # One process alone: a graph cannot hold what others have to say.
        worthwhile = recorded and group.size == 1 and budget.steps >= MIN_RECORDED_STEPS
        if worthwhile and isinstance(model, EmbeddingModel) and model.records(moving.device):
            again = model.record(lambda: step(moving))
            for _ in range(budget.steps - 1):
                again()
        else:
            for _ in range(budget.steps):
                moved = step(moving)
                if moved is None:
                    break
                moving = moved
        with torch.no_grad():
            return update.result(moving, evaluate)
