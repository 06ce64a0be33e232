"""CA+, CA-, QA+ and QA-: an image is moved up or down in a result list.

B(q) are the distances from a query q to the whole gallery. A rank is the percentile of the gallery, 0 the best place.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.evaluation import ranking, targets
from colotride.evaluation.attacks.base import Attack, AttackBatch, Direction, Outcomes
from colotride.geometry import distances
from colotride.pgd import Objective
from colotride.registry import register_attack

SHARPNESS = 0.25
"""Width of the sigmoid that stands for "nearer than" in the smooth rank, in standard deviations of B(q)."""


class _CandidateAttack(Attack):
    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """Rank of the moved candidate for its query."""
        (name,) = self.numbers
        rank = ranking.percentile_rank(
            attacked.gallery, attacked.target_embedding, embeddings, attacked.target, attacked.moving
        )
        return {name: rank}


class _QueryAttack(Attack):
    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """Rank of the candidate for the moved query."""
        (name,) = self.numbers
        rank = ranking.percentile_rank(
            attacked.gallery, embeddings, attacked.target_embedding, attacked.moving, attacked.target
        )
        return {name: rank}


def _baseline(attacked: AttackBatch) -> Float[Tensor, "batch images"]:
    """B(q) of the targets, which stay where they are."""
    exact = attacked.gallery.exact
    squares = exact.squares(exact.points[attacked.target.to(exact.labels.device)])
    return squares.clamp_(min=0).sqrt_().to(attacked.gallery.embeddings)


@register_attack("CA+")
class CandidateRaised(_CandidateAttack):
    """CA+: raise the rank of a candidate c for a random query q; mean relu(d(q, c~) - B(q))."""

    numbers: ClassVar[Mapping[str, Direction]] = {"CA+": "lowered"}
    draw = staticmethod(targets.random_others)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        baseline = _baseline(attacked)
        return lambda moved: torch.relu(distances(attacked.target_embedding, moved)[:, None] - baseline).mean(dim=1)


@register_attack("CA-")
class CandidateLowered(_CandidateAttack):
    """CA-: lower the rank of a candidate c for a query near it; mean relu(B(q) - d(q, c~))."""

    numbers: ClassVar[Mapping[str, Direction]] = {"CA-": "raised"}
    draw = staticmethod(targets.random_among_nearest)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        baseline = _baseline(attacked)
        return lambda moved: torch.relu(baseline - distances(attacked.target_embedding, moved)[:, None]).mean(dim=1)


@register_attack("QA+")
class QueryRaises(_QueryAttack):
    """QA+: make a query q raise a random candidate c; mean relu(d(q~, c) - B(q~))."""

    numbers: ClassVar[Mapping[str, Direction]] = {"QA+": "lowered"}
    draw = staticmethod(targets.random_others)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""

        def losses(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
            to_gallery = attacked.to_gallery(moved)
            return torch.relu(attacked.to_target(to_gallery) - to_gallery).mean(dim=1)

        return losses

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """The smooth rank itself: far images, which dominate the mean of the hinges, count no more than near ones."""
        return (smooth_rank(attacked, sign=1),)


@register_attack("QA-")
class QueryLowers(_QueryAttack):
    """QA-: make a query q lower a candidate c near it; mean relu(B(q~) - d(q~, c))."""

    numbers: ClassVar[Mapping[str, Direction]] = {"QA-": "raised"}
    draw = staticmethod(targets.random_among_nearest)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        return lower_target(attacked)

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """Minus the smooth rank; see `QueryRaises`."""
        return (smooth_rank(attacked, sign=-1),)


def lower_target(attacked: AttackBatch) -> Objective:
    """Mean relu(B(q~) - d(q~, c)), the loss of QA- and GTT."""

    def losses(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        to_gallery = attacked.to_gallery(moved)
        return torch.relu(to_gallery - attacked.to_target(to_gallery)).mean(dim=1)

    return losses


def smooth_rank(attacked: AttackBatch, sign: int) -> Objective:
    """Sign times mean sigmoid((d(q~, c) - B(q~)) / T): the rank of c in [0, 1], differentiable.

    T is `SHARPNESS` standard deviations of the query's clean distances, so that it follows the embedding's scale.
    """
    width = SHARPNESS * attacked.to_gallery(attacked.clean).std(dim=1, keepdim=True).clamp_min(1e-12)

    def losses(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        to_gallery = attacked.to_gallery(moved)
        return sign * torch.sigmoid((attacked.to_target(to_gallery) - to_gallery) / width).mean(dim=1)

    return losses
