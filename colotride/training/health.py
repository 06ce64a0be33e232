"""When a run has failed: collapse, NaN and divergence, each with its definition."""

import math
from typing import Literal

from pydantic import Field

from colotride.settings import Settings

FailureKind = Literal["collapsed", "nan", "diverged"]


class HealthSettings(Settings):
    """The limits beyond which a run ends."""

    collapse_distance: float = Field(default=0.05, ge=0, le=2)
    """Mean d(A,N) of the clean triplets below which the embedding counts as shrunk to a point; 0 never stops."""
    collapse_patience: int = Field(default=2, ge=1)
    """Epochs in a row that must look collapsed: an embedding often shrinks for one epoch and recovers."""
    gradient_limit: float = Field(default=1e4, gt=0)
    """Gradient norm above which a run counts as diverged."""


def failure_of(
    settings: HealthSettings, epochs: list[dict[str, float]], margin: float
) -> tuple[FailureKind, str] | None:
    """What is wrong with a model after its last epoch, with the figures, or None.

    nan: the loss or the gradient norm is NaN.
    diverged: the loss or the gradient norm is infinite, or the norm exceeded `gradient_limit`.
    collapsed: in each of the last `collapse_patience` epochs the mean clean d(A,N) is below `collapse_distance`
    **and** the mean loss is no better than 95 % of the margin, which is what a model that maps everything to one
    point pays. A robust model whose embedding shrank but still separates its triplets is not collapsed.

    Args:
        settings: the limits.
        epochs: means over each epoch so far, at least one; `gradient_norm` is the largest of its epoch.
        margin: of the triplet loss.
    """
    loss, norm = epochs[-1]["loss"], epochs[-1]["gradient_norm"]
    if math.isnan(loss) or math.isnan(norm):
        return "nan", f"loss {loss}, gradient norm {norm}"
    if math.isinf(loss) or norm > settings.gradient_limit:
        return "diverged", f"loss {loss:.4g}, gradient norm {norm:.4g} (limit {settings.gradient_limit:g})"
    recent = epochs[-settings.collapse_patience :]
    if len(recent) == settings.collapse_patience and all(_shrunk(settings, epoch, margin) for epoch in recent):
        distance = epochs[-1]["distance_anchor_negative"]
        return "collapsed", (
            f"mean d(A,N) {distance:.4f} is below {settings.collapse_distance:g} and the loss {loss:.4f} "
            f"is that of a constant embedding (margin {margin:g}), for {len(recent)} epochs"
        )
    return None


def _shrunk(settings: HealthSettings, epoch: dict[str, float], margin: float) -> bool:
    return epoch["distance_anchor_negative"] < settings.collapse_distance and epoch["loss"] >= 0.95 * margin
