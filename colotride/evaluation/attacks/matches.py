"""LTM, GTM and GTT: a query loses its matches, meets an image of another class, or loses its first result."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.evaluation import ranking, targets
from colotride.evaluation.attacks.base import Attack, AttackBatch, Direction, Outcomes
from colotride.evaluation.attacks.ranks import lower_target
from colotride.geometry import distances
from colotride.pgd import Objective
from colotride.registry import register_attack

KEPT_RESULTS = 4
"""GTT counts a first result as kept while it is among this many."""


@register_attack("LTM")
class LearningToMismatch(Attack):
    """LTM: raise the nearest match and lower the farthest image of another class.

    relu(max d(q~, other class) - min d(q~, same class)), the query itself left out.
    """

    numbers: ClassVar[Mapping[str, Direction]] = {"LTM": "lowered"}

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        same, other = ranking.same_and_other(attacked.gallery.labels, attacked.moving)
        return mismatch(attacked, same, other)

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """R@1 directly."""
        return (match_margin(attacked),)

    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """R@1."""
        return {"LTM": ranking.first_result_is_match(attacked.gallery, embeddings, attacked.moving)}


@register_attack("GTM")
class GreedyMismatch(Attack):
    """GTM: meet the nearest candidate c of another class; d(q~, c)."""

    numbers: ClassVar[Mapping[str, Direction]] = {"GTM": "lowered"}
    draw = staticmethod(targets.nearest_of_other_class)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        return lambda moved: distances(moved, attacked.target_embedding)

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """R@1 directly: whichever other image is nearest counts, not only the one that was nearest at first."""
        return (match_margin(attacked),)

    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """R@1."""
        return {"GTM": ranking.first_result_is_match(attacked.gallery, embeddings, attacked.moving)}


@register_attack("GTT")
class GreedyTopShift(Attack):
    """GTT: lose the first result, with the loss of QA- on it."""

    numbers: ClassVar[Mapping[str, Direction]] = {"GTT": "lowered"}
    draw = staticmethod(targets.nearest_others)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        return lower_target(attacked)

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """What is counted, directly: the last place that counts, minus the old first result."""
        return (_last_kept_margin(attacked),)

    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """100 while the old first result is among the first `KEPT_RESULTS`."""
        kept = ranking.in_first_results(attacked.gallery, embeddings, attacked.moving, attacked.target, k=KEPT_RESULTS)
        return {"GTT": kept}


def mismatch(attacked: AttackBatch, same: Tensor, other: Tensor) -> Objective:
    """LTM's loss for given matches and non-matches, [batch, images] each."""

    def losses(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        to_gallery = attacked.to_gallery(moved)
        farthest_other = to_gallery.masked_fill(~other, -torch.inf).amax(dim=1)
        nearest_match = to_gallery.masked_fill(~same, torch.inf).amin(dim=1)
        return torch.relu(farthest_other - nearest_match)

    return losses


def match_margin(attacked: AttackBatch) -> Objective:
    """Distance to the nearest other image minus that to the nearest match: below 0 exactly where R@1 is lost."""
    same, other = ranking.same_and_other(attacked.gallery.labels, attacked.moving)

    def losses(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        to_gallery = attacked.to_gallery(moved)
        nearest_other = to_gallery.masked_fill(~other, torch.inf).amin(dim=1)
        return nearest_other - to_gallery.masked_fill(~same, torch.inf).amin(dim=1)

    return losses


def _last_kept_margin(attacked: AttackBatch) -> Objective:
    rows = torch.arange(len(attacked.moving), device=attacked.moving.device)

    def losses(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        to_gallery = attacked.to_gallery(moved)
        ruled_out = torch.zeros_like(to_gallery, dtype=torch.bool)
        ruled_out[rows, attacked.moving] = True
        ruled_out[rows, attacked.target] = True
        rivals = to_gallery.masked_fill(ruled_out, torch.inf)
        last_kept = rivals.topk(min(KEPT_RESULTS, rivals.shape[1] - 2), largest=False).values[:, -1]
        return last_kept - attacked.to_target(to_gallery)[:, 0]

    return losses
