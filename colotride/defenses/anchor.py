"""ANP, anchor perturbation: the anchors move, the positives and negatives stay."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.triplets import CollapsenessSettings, Triplets
from colotride.geometry import attended_ends, weighted_distance
from colotride.losses import mean_where, nearest_half
from colotride.pgd import Objective

HardnessTerm = Literal["raise", "released", "off"]

HARDNESS_SIGN = {"raise": -1.0, "released": 1.0, "off": 0.0}


def anchor_objective(
    triplets: Triplets,
    sigma: Float[Tensor, ""],
    collapseness: CollapsenessSettings,
    hardness_term: HardnessTerm = "raise",
    stop_at: float | None = 0.0,
) -> Objective:
    """L_ANP = relu(-sigma (C(A~, P, N) - C*)) + L_tr (Eq. 11, where C* = 0), a function of the embeddings of A~.

    L_tr is off while assisting: it would counteract the assist direction.

    Args:
        triplets: the clean triplets; the candidates' embeddings stay fixed.
        sigma: direction, +1 attack or -1 assist.
        collapseness: how C is measured.
        hardness_term: sign of the first term: "raise" as in the paper's words, "released" the other way round as in
            the authors' follow-up code (only L_tr acts while C < 0), "off" without it.
        stop_at: C*; None for no relu around the first term.
    """
    top = nearest_half(triplets.anchor_negative)
    attacking = (sigma > 0).to(sigma.dtype)
    sign = HARDNESS_SIGN[hardness_term]

    def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
        to_positive = triplets.distances(embeddings, triplets.positive_embedding)
        to_negative = triplets.distances(embeddings, triplets.negative_embedding)
        reached = collapseness(to_positive, to_negative)
        first = sign * sigma * reached if stop_at is None else torch.relu(sign * sigma * (reached - stop_at))
        # The shift starts at 0, where the gradient of the plain distance is 0.
        shift = triplets.offset_distances(embeddings, triplets.anchor_embedding)
        return first + attacking * top_ranked_term(to_positive, to_negative, shift, top, collapseness)

    return objective


def top_ranked_term(
    to_positive: Float[Tensor, "triplets"],
    to_negative: Float[Tensor, "triplets"],
    shift: Float[Tensor, "triplets"],
    top: Tensor,
    collapseness: CollapsenessSettings,
) -> Float[Tensor, ""]:
    """L_tr = g relu(mean d(A~,N_top) - mean d(A~,A)), g = exp(-relu(d_w(A~,N) - d_w(A~,P))) (Eq. 12).

    Pulls the anchors from where they were to the negatives nearest to them; g grows to 1 as the weighted gap closes.
    g sets the magnitude of the term and is a constant for the gradient: through it, L_tr would also fall by widening
    the gap, which is the opposite of the aim of the attack.

    Args:
        to_positive: d(A~, P).
        to_negative: d(A~, N).
        shift: d(A~, A), A the clean anchor.
        top: which negatives are N_top, the half that is nearest to the clean anchors.
        collapseness: the weights of the weighted means d_w.
    """
    ends = attended_ends(collapseness.weighting)
    positive = weighted_distance(to_positive.detach(), collapseness.attention_factor, ends[0])
    negative = weighted_distance(to_negative.detach(), collapseness.attention_factor, ends[1])
    gate = torch.exp(-torch.relu(negative - positive))
    return gate * torch.relu(mean_where(to_negative, top) - shift.mean())
