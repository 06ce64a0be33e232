"""The losses that training minimises, as functions of the embeddings or the distances of a batch of triplets."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LossName = Literal["triplet", "multi-similarity"]

POSITIVE_SCALE, NEGATIVE_SCALE, THRESHOLD, MINING_MARGIN = 2.0, 50.0, 0.5, 0.1
"""alpha, beta, lambda and epsilon of the multi-similarity loss, as in its authors' code."""


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


def multi_similarity_loss(embeddings: Float[Tensor, "images dim"], labels: Int[Tensor, "images"]) -> Float[Tensor, ""]:
    """Multi-similarity loss of a batch (Wang et al., 2019), the second base loss under which COLO-TRIDE trains.

    For each image log(1 + sum_p exp(-alpha (S_p - lambda))) / alpha + log(1 + sum_n exp(beta (S_n - lambda))) / beta,
    S the cosine similarities, over the pairs that its mining keeps: positives less similar than the most similar
    negative plus epsilon, negatives more similar than the least similar positive minus epsilon.

    Args:
        embeddings: unit vectors, all three parts of the triplets.
        labels: their classes, on the same device.
    """
    similarity = embeddings @ embeddings.T
    same = labels[:, None] == labels[None, :]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    negative = ~same
    hardest_negative = similarity.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    hardest_positive = similarity.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
    positive = positive & (similarity < hardest_negative + MINING_MARGIN)
    negative = negative & (similarity > hardest_positive - MINING_MARGIN)
    pull = torch.where(positive, torch.exp(-POSITIVE_SCALE * (similarity - THRESHOLD)), 0.0).sum(dim=1)
    push = torch.where(negative, torch.exp(NEGATIVE_SCALE * (similarity - THRESHOLD)), 0.0).sum(dim=1)
    return (torch.log1p(pull) / POSITIVE_SCALE + torch.log1p(push) / NEGATIVE_SCALE).mean()
