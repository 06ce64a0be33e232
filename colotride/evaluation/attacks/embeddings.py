"""TMA and ES: an embedding is moved towards another one, or away from itself."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.evaluation import ranking, targets
from colotride.evaluation.attacks.base import Attack, AttackBatch, Direction, Outcomes
from colotride.evaluation.attacks.matches import match_margin
from colotride.geometry import distances
from colotride.pgd import Objective
from colotride.registry import register_attack

START_NOISE = 1e-7
"""By how much ES shakes the clean embedding, per dimension: the gradient at distance 0 has no direction."""


@register_attack("TMA")
class TargetedMatch(Attack):
    """TMA: move a query's embedding to a random one t; 1 - cos(f(q~), t)."""

    numbers: ClassVar[Mapping[str, Direction]] = {"TMA": "raised"}
    draw = staticmethod(targets.random_others)

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        return lambda moved: 1 - (moved * attacked.target_embedding).sum(dim=1)

    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """The cosine."""
        return {"TMA": (embeddings * attacked.target_embedding).sum(dim=1)}


@register_attack("ES")
class EmbeddingShift(Attack):
    """ES: move a query's embedding as far as possible; - d(f(q~), f(q)).

    The clean embedding is shaken by noise of alternating signs instead of random ones, so that neither seeds nor
    batches change it.
    """

    numbers: ClassVar[Mapping[str, Direction]] = {"ES:D": "raised", "ES:R": "lowered"}

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        clean = attacked.clean
        signs = torch.ones(clean.shape[1], dtype=clean.dtype, device=clean.device)
        signs[1::2] = -1
        return lambda moved: -distances(moved, clean + START_NOISE * signs)

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """R@1 directly: the nearest other image comes before the nearest match."""
        return (match_margin(attacked),)

    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """The shift (ES:D) and R@1 (ES:R)."""
        return {
            "ES:D": ranking.embedding_shift(attacked.gallery, embeddings, attacked.moving),
            "ES:R": ranking.first_result_is_match(attacked.gallery, embeddings, attacked.moving),
        }
