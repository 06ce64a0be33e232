"""The losses that training minimises, as functions of the distances of a batch of triplets."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def triplet_loss(
    anchor_positive: Float[Tensor, "triplets"], anchor_negative: Float[Tensor, "triplets"], margin: float
) -> Float[Tensor, ""]:
    """Triplet loss L_T = mean relu(d(A,P) - d(A,N) + margin) (Eq. 1), in [0, 2 + margin]."""
    return torch.relu(anchor_positive - anchor_negative + margin).mean()


def nearest_half(values: Float[Tensor, "triplets"]) -> Bool[Tensor, "triplets"]:
    """Which triplets hold the half of the candidates that are nearest to their anchors ("top" in Eq. 12-13).

    Of B distances the B // 2 smallest, at least one.
    """
    chosen = torch.zeros_like(values, dtype=torch.bool)
    nearest = values.detach().topk(max(1, len(values) // 2), largest=False).indices
    return chosen.index_fill(0, nearest, True)


def mean_where(values: Float[Tensor, "triplets"], chosen: Bool[Tensor, "triplets"]) -> Float[Tensor, ""]:
    """Mean of the chosen values, in one pass of fixed shape (no synchronisation with the device)."""
    return (values * chosen).sum() / chosen.sum()


def top_ranked_triplet_loss(
    anchor_positive: Float[Tensor, "triplets"],
    anchor_negative: Float[Tensor, "triplets"],
    coefficient: float,
    margin: float,
) -> Float[Tensor, ""]:
    """Top-ranked triplet eta relu(mean d(A,P_top) - mean d(A,N_top) + margin_top) (Eq. 13).

    P_top and N_top are the half of the batch's positives and of its negatives nearest to their anchors.

    Args:
        anchor_positive: d(A_i, P_i).
        anchor_negative: d(A_i, N_i).
        coefficient: eta, the top-ranked coefficient, >= 0.
        margin: margin_top.
    """
    positive = mean_where(anchor_positive, nearest_half(anchor_positive))
    negative = mean_where(anchor_negative, nearest_half(anchor_negative))
    return coefficient * torch.relu(positive - negative + margin)
