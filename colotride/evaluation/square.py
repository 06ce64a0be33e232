"""Square proposals: random changes of a square window, which need no gradient (Andriushchenko et al., ECCV 2020).

Every random number depends on the seed and on the query's place in the gallery, so that batches do not show.
"""

import bisect
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colotride.pgd import Ball, lengths
from colotride.randomness import hashed_uniform

FIRST_SHARE = 0.8
"""Of the image's area that the first windows cover."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps, of 10 000, at which the area is halved."""


def window_side(step: int, steps: int, height: int, width: int) -> int:
    """Side in pixels of the window at one of `steps` steps, counted from 0."""
    share = FIRST_SHARE / 2 ** bisect.bisect_left(HALVINGS, step * 10_000 // steps)
    return min(max(1, round(math.sqrt(share * height * width))), height, width)


def stripes(ball: Ball, queries: Int[Tensor, "rows"], seed: int) -> Float[Tensor, "rows channels height width"]:
    """Where the search starts: vertical stripes of random signs, at the edge of the ball."""
    rows, channels, _, width = ball.images.shape
    signs = _signs(seed, queries, channels * width).view(rows, channels, 1, width).to(ball.images)
    size = ball.epsilon if ball.norm == "linf" else ball.epsilon / math.sqrt(ball.images[0].numel())
    return ball.project_(ball.images + size * signs)


def proposal(
    ball: Ball,
    moving: Float[Tensor, "rows channels height width"],
    queries: Int[Tensor, "rows"],
    side: int,
    seed: int,
) -> Float[Tensor, "rows channels height width"]:
    """A change of one random window of each image, inside the ball.

    In the linf norm the window takes one random sign per channel, times epsilon. In l2 it takes random signs on top of the
    direction that it had, and the length that another window gives up, together with what was left of epsilon: the change
    is epsilon long before pixels are clipped.

    Args:
        ball: around the clean images.
        moving: the images now.
        queries: their places in the gallery, which their random numbers depend on.
        side: of the window.
        seed: of this step.
    """
    rows, channels, height, width = moving.shape
    draws = hashed_uniform(seed, queries, 4).to(moving.device)
    window = _window(draws[:, :2], side, height, width)
    signs = _signs(seed + 1, queries, channels).view(rows, channels, 1, 1).to(moving)
    change = moving - ball.images
    if ball.norm == "linf":
        return ball.project_(ball.images + torch.where(window, ball.epsilon * signs, change))
    emptied = _window(draws[:, 2:], side, height, width)
    kept = change.masked_fill(window | emptied, 0)
    inside = change * window
    pattern = window * (signs / (channels * side * side) ** 0.5 + inside / lengths(inside).clamp_min(1e-12))
    left = (ball.epsilon**2 - lengths(kept).square()).clamp_min(0).sqrt()
    return ball.project_(ball.images + kept + pattern * (left / lengths(pattern).clamp_min(1e-12)))


def _window(corner: Float[Tensor, "rows 2"], side: int, height: int, width: int) -> Bool[Tensor, "rows 1 height width"]:
    top = (corner[:, :1] * (height - side + 1)).long()
    left = (corner[:, 1:] * (width - side + 1)).long()
    down, across = (torch.arange(size, device=corner.device)[None] for size in (height, width))
    inside = ((down >= top) & (down < top + side))[:, :, None] & ((across >= left) & (across < left + side))[:, None, :]
    return inside[:, None]


def _signs(seed: int, queries: Int[Tensor, "rows"], count: int) -> Float[Tensor, "rows count"]:
    return torch.where(hashed_uniform(seed, queries, count) < 0.5, -1.0, 1.0)
