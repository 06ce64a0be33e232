"""CAP, candidate perturbation: the positives and negatives move, the anchors stay."""

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.triplets import CollapsenessSettings, Triplets
from colotride.pgd import Objective


def candidate_objective(
    triplets: Triplets, sigma: Float[Tensor, ""], collapseness: CollapsenessSettings, stop_at: float | None = 0.0
) -> Objective:
    """L_CAP = relu(-sigma (C(A, P~, N~) - C*)) (Eq. 10, where C* = 0), a function of the embeddings of `cat([P~, N~])`.

    The relu is part of the method: attack and assist both end at C*. Without it PGD runs on and the model
    collapses although C of the clean batch stays negative.

    Args:
        triplets: the clean triplets; the anchors' embeddings stay fixed.
        sigma: direction, +1 attack or -1 assist.
        collapseness: how C is measured.
        stop_at: C*; None for no relu.
    """

    def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
        positive, negative = embeddings.chunk(2)
        anchor = triplets.anchor_embedding
        reached = collapseness(triplets.distances(anchor, positive), triplets.distances(anchor, negative))
        return -sigma * reached if stop_at is None else torch.relu(-sigma * (reached - stop_at))

    return objective
