"""What an attack takes for granted of a model: one answer per image, and gradients that survive its arithmetic."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from colotride.evaluation.sanity_context import TOLERANCE, SanityContext, Verdict
from colotride.geometry import distances
from colotride.pgd import frozen, perturb

ROUNDING = 1e-4
"""Distance between two embeddings of one image that sums in another order explain."""

LOUDER = 2.0**20
"""Factor on the loss that lifts gradients which underflow; a power of 2, which rounds nothing."""

SCALES = (1.0, 1e-4, 1e4)
"""Factors on the embedding before it is normalised."""


def randomised_output(context: SanityContext) -> Verdict:
    """Two passes over the same images must agree: against a random model attacks follow the noise."""
    difference = float(distances(context.embed(context.images), context.embed(context.images)).max())
    figures = {"largest difference of two passes": difference}
    return difference <= ROUNDING, figures, "the model answers at random: average its embeddings before you attack it"


def batch_dependence(context: SanityContext) -> Verdict:
    """An image must be embedded the same beside other images, in another order and alone."""
    images = context.images
    whole, half = context.embed(images), (len(images) + 1) // 2
    apart = torch.cat([context.embed(part) for part in images.split(half)])
    turned = context.embed(images.flip(0)).flip(0)
    alone = context.embed(images[:1])
    differences = {
        "in half batches": float(distances(whole, apart).max()),
        "in another order": float(distances(whole, turned).max()),
        "alone": float(distances(whole[:1], alone).max()),
    }
    meaning = "an image's embedding depends on its neighbours: BatchNorm may be in training mode"
    return max(differences.values()) <= ROUNDING, differences, meaning


def gradient_underflow(context: SanityContext, seed: int) -> Verdict:
    """No pixel may have a gradient only where the loss is multiplied by a large number."""
    start = context.random_start(context.budget, torch.Generator().manual_seed(seed)).clamp(0, 1)
    plain, louder = (_gradient(context, start, factor) for factor in (1.0, LOUDER))
    lost = (plain == 0) & (louder != 0) & torch.isfinite(louder)
    share, zeros = float(lost.double().mean()), float((plain == 0).double().mean())
    figures = {"share of pixels that underflow": share, "share without gradient": zeros}
    return share <= TOLERANCE, figures, "gradients are too small for the arithmetic: attack with a larger loss"


def scale_invariance(context: SanityContext, seed: int) -> Verdict:
    """An attack must reach the same when embeddings are multiplied before they are normalised.

    Every `torch.nn.functional.normalize` of the model is given a multiple; of a model that calls none, such as TorchScript,
    nothing changes, and the figures say so.
    """
    start = context.random_start(context.budget, torch.Generator().manual_seed(seed))
    shifts, seen = {}, 0
    for scale in SCALES:
        with _Scaled(scale) as scaled:
            moved = perturb(context.model, context.images, context.objective(), context.budget, start)
            shifts[f"shift at scale {scale:g}"] = float(
                distances(context.embed(moved), context.embed(context.images)).mean()
            )
        seen = max(seen, scaled.seen)
    low, high = min(shifts.values()), max(shifts.values())
    same = high - low <= max(TOLERANCE * high, ROUNDING)
    meaning = "the attack depends on the embedding's scale: a floor or an offset at the normalisation hides gradients"
    return same, shifts | {"normalisations seen": float(seen)}, meaning


def precision(context: SanityContext) -> Verdict:
    """Embeddings in double precision must agree with those that are attacked, compared with what lies between images."""
    exact = context.gallery.exact
    squares = exact.squares(exact.points[context.queries.to(exact.labels.device)])
    squares.scatter_(1, context.queries.to(exact.labels.device)[:, None], torch.inf)
    nearest = float(squares.amin(dim=1).clamp_min(0).sqrt().median())
    bits = torch.finfo(context.clean.dtype).bits
    figures = {"bits": float(bits), "median distance to the first result": nearest}
    difference = _double_difference(context)
    if difference is None:
        # A model that is fixed to one precision cannot be compared; nothing is said against it.
        return True, figures, ""
    figures["largest difference in double precision"] = difference
    passed = difference <= TOLERANCE * nearest
    return (
        passed,
        figures,
        "the model's rounding moves its embeddings: evaluate it in float64, or without mixed precision",
    )


def _double_difference(context: SanityContext) -> float | None:
    if context.images.device.type == "mps":
        return None
    try:
        double = copy.deepcopy(context.model).double()
        with frozen(double) as embed, torch.no_grad():
            embeddings = embed(context.images.double())
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    return float(distances(embeddings.double(), context.embed(context.images).double()).max())


def _gradient(context: SanityContext, start: Tensor, factor: float) -> Tensor:
    start = start.detach().requires_grad_(True)
    with frozen(context.model) as embed, torch.enable_grad():
        loss = factor * context.objective()(embed(start))
        (gradient,) = torch.autograd.grad(loss, start, allow_unused=True)
    return torch.zeros_like(start) if gradient is None else gradient


class _Scaled(TorchFunctionMode):
    """Multiplies whatever is normalised meanwhile."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale, self.seen = scale, 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is functional.normalize:
            self.seen += 1
            first, *rest = args
            args = (self.scale * first, *rest)
        return function(*args, **(kwargs or {}))
