"""CAP, candidate perturbation: the positives and negatives move, the anchors stay."""

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.triplets import CollapsenessSettings, Triplets
from colotride.pgd import Objective


def candidate_objective(
    triplets: Triplets, sigma: Float[Tensor, ""], collapseness: CollapsenessSettings, *, stop: bool = True
) -> Objective:
    """L_CAP = relu(-sigma C(A, P~, N~)) (Eq. 10), a function of the embeddings of `cat([P~, N~])`.

    The relu is part of the method: attack and assist both end at C = 0. Without it PGD runs on and the model
    collapses although C of the clean batch stays negative.

    Args:
        triplets: the clean triplets; the anchors' embeddings stay fixed.
        sigma: direction, +1 attack or -1 assist.
        collapseness: how C is measured.
        stop: whether the relu is there.
    """

    def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
        positive, negative = embeddings.chunk(2)
        anchor = triplets.anchor_embedding
        towards = -sigma * collapseness(triplets.distances(anchor, positive), triplets.distances(anchor, negative))
        return torch.relu(towards) if stop else towards

    return objective
