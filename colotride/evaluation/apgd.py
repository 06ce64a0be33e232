"""APGD (Croce and Hein, 2020, "Reliable evaluation of adversarial robustness"): PGD that chooses its own steps.

Every image has its own step size. It starts at twice the radius and is halved at checkpoints where the loss made no
progress; the image then continues from the best point it has seen. Steps carry momentum. The best point is the result.
https://arxiv.org/abs/2003.01690
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from colotride.pgd import Ball
from colotride.pgd_settings import Budget

MOMENTUM = 0.75
"""Share of a step that is the projected gradient step; the rest repeats the step before."""

PROGRESS = 0.75
"""Between two checkpoints the loss must fall in more than this share of the steps."""

FIRST_CHECKPOINT, SHORTENED_BY, SHORTEST = 0.22, 0.03, 0.06
"""Distance of the first checkpoint, by how much each further one is nearer, and the least, as shares of all steps."""


def checkpoints(steps: int) -> list[int]:
    """After how many forward passes progress is judged."""
    distance, shortened, shortest = (max(1, int(share * steps)) for share in (FIRST_CHECKPOINT, SHORTENED_BY, SHORTEST))
    found = [distance]
    while found[-1] < steps:
        distance = max(distance - shortened, shortest)
        found.append(found[-1] + distance)
    return [each for each in found if each < steps]


class AutoPGD:
    """An update rule for `perturb`, whose objective must return each image's own loss."""

    def __init__(
        self, ball: Ball, budget: Budget, observe: Callable[[int, Float[Tensor, "images dim"]], None] | None = None
    ) -> None:
        """Start a perturbation.

        Args:
            ball: that the images stay in.
            budget: of which the number of steps decides the checkpoints; there is no step size to choose.
            observe: called at every checkpoint, and at the end, with the number of steps so far and the embeddings of the
                best points.
        """
        self._ball, self._observe = ball, observe
        self._checkpoints, self._steps = set(checkpoints(budget.steps)), budget.steps
        self._passes = 0
        self._losses = self._best_gradient = torch.empty(0)
        self._step_size = torch.full_like(ball.images[:, :1, :1, :1], 2 * budget.epsilon)
        self._previous: Tensor | None = None

    def step(self, moving: Tensor, embeddings: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        """See `UpdateRule`."""
        if self._passes == 0:
            self._best, self._best_gradient, self._best_embeddings = moving, gradient, embeddings
            self._best_losses = self._judged_losses = losses
            self._fell = torch.zeros_like(losses)
            self._halved = torch.zeros_like(losses, dtype=torch.bool)
            self._judged_at = 0
        else:
            self._fell += losses < self._losses
            self._keep(moving, embeddings, losses, gradient)
        if self._passes in self._checkpoints:
            moving, gradient = self._judge(moving, gradient)
        self._losses = losses
        self._passes += 1
        return self._advance(moving, gradient)

    def can_move(self, gradient: Tensor) -> bool:
        """See `UpdateRule`; an image without a gradient may still be sent back to its best point, which has one."""
        return bool(gradient.any()) or bool(self._best_gradient.any())

    def result(self, moving: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """See `UpdateRule`."""
        embeddings, losses = evaluate(moving)
        if self._passes == 0:
            self._best, self._best_embeddings = moving, embeddings
        else:
            self._keep(moving, embeddings, losses, self._best_gradient)
        if self._observe:
            self._observe(self._steps, self._best_embeddings)
        return self._best

    def _keep(self, moving: Tensor, embeddings: Tensor, losses: Tensor, gradient: Tensor) -> None:
        better = losses < self._best_losses
        self._best_losses = torch.where(better, losses, self._best_losses)
        self._best_embeddings = torch.where(better[:, None], embeddings, self._best_embeddings)
        pixels = better[:, None, None, None]
        self._best = torch.where(pixels, moving, self._best)
        self._best_gradient = torch.where(pixels, gradient, self._best_gradient)

    def _judge(self, moving: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the step of images that made no progress, and send them back to their best point."""
        oscillates = self._fell <= PROGRESS * (self._passes - self._judged_at)
        stuck: Bool[Tensor, "images"] = ~self._halved & (self._best_losses >= self._judged_losses)
        self._halved = oscillates | stuck
        self._judged_losses, self._judged_at = self._best_losses, self._passes
        self._fell = torch.zeros_like(self._fell)
        pixels = self._halved[:, None, None, None]
        self._step_size = torch.where(pixels, self._step_size / 2, self._step_size)
        if self._observe:
            self._observe(self._passes, self._best_embeddings)
        return torch.where(pixels, self._best, moving), torch.where(pixels, self._best_gradient, gradient)

    def _advance(self, moving: Tensor, gradient: Tensor) -> Tensor:
        ahead = self._ball.project_(moving - self._step_size * self._ball.direction_(gradient.clone()))
        if self._previous is not None:
            step = MOMENTUM * (ahead - moving) + (1 - MOMENTUM) * (moving - self._previous)
            # Without a gradient an image stays where it is, as in PGD: momentum would make it depend on how long the
            # images beside it keep the loop running.
            moves = gradient.flatten(1).any(dim=1)[:, None, None, None]
            ahead = torch.where(moves, self._ball.project_(moving + step), moving)
        self._previous = moving
        return ahead
