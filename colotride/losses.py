"""The losses that training minimises, as functions of the embeddings or the distances of a batch of triplets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import AfterValidator
from torch import Tensor

from colotride.registry import LOSSES, register_loss

LossName = Annotated[str, AfterValidator(LOSSES.check)]
"""Name of a registered base loss."""

POSITIVE_SCALE, NEGATIVE_SCALE, THRESHOLD, MINING_MARGIN = 2.0, 50.0, 0.5, 0.1
"""alpha, beta, lambda and epsilon of the multi-similarity loss, as in its authors' code."""


@dataclass(frozen=True)
class LossBatch:
    """What a base loss may be a function of: the embeddings of a batch of triplets, with their graph.

    Everything refers to the whole batch, even where several processes share it. What a loss does not use is not
    computed.
    """

    anchor: Float[Tensor, "own dim"]
    """Unit vectors of this process's share of the batch."""
    positive: Float[Tensor, "own dim"]
    negative: Float[Tensor, "own dim"]
    labels: Int[Tensor, "images"]
    """Classes of all anchors, all positives and all negatives, on the device."""
    margin: float
    distances: Callable[[Tensor, Tensor], Tensor]
    """Distances of matching rows, in the metric of the training, joined over the processes."""
    join: Callable[[Tensor], Tensor]
    """Joins the rows of all processes."""

    @cached_property
    def anchor_positive(self) -> Float[Tensor, "triplets"]:
        """d(A, P)."""
        return self.distances(self.anchor, self.positive)

    @cached_property
    def anchor_negative(self) -> Float[Tensor, "triplets"]:
        """d(A, N)."""
        return self.distances(self.anchor, self.negative)

    @cached_property
    def embeddings(self) -> Float[Tensor, "images dim"]:
        """All anchors, then all positives, then all negatives; row i is of class `labels[i]`."""
        return torch.cat([self.join(part) for part in (self.anchor, self.positive, self.negative)])


@register_loss("triplet")
def _triplet(batch: LossBatch) -> Float[Tensor, ""]:
    return triplet_loss(batch.anchor_positive, batch.anchor_negative, batch.margin)


@register_loss("relative-triplet")
def _relative_triplet(batch: LossBatch) -> Float[Tensor, ""]:
    return relative_triplet_loss(batch.anchor_positive, batch.anchor_negative, batch.margin)


@register_loss("multi-similarity")
def _multi_similarity(batch: LossBatch) -> Float[Tensor, ""]:
    return multi_similarity_loss(batch.embeddings, batch.labels)


def triplet_loss(
    anchor_positive: Float[Tensor, "triplets"], anchor_negative: Float[Tensor, "triplets"], margin: float
) -> Float[Tensor, ""]:
    """Triplet loss L_T = mean relu(d(A,P) - d(A,N) + margin) (Eq. 1), in [0, 2 + margin]."""
    return torch.relu(anchor_positive - anchor_negative + margin).mean()


def relative_triplet_loss(
    anchor_positive: Float[Tensor, "triplets"], anchor_negative: Float[Tensor, "triplets"], margin: float
) -> Float[Tensor, ""]:
    """Triplet loss in units of the batch's mean distance, mean relu((d(A,P) - d(A,N)) / m + margin).

    m is the mean of all d(A,P) and d(A,N). Under an attack that raises the hardness to 0, shrinking the embedding
    lowers the triplet loss to its margin whatever is retrieved; this loss does not change when all distances shrink
    alike. Where every distance is 0, m is kept at 1e-12.
    """
    mean = (anchor_positive.mean() + anchor_negative.mean()) / 2
    return torch.relu((anchor_positive - anchor_negative) / mean.clamp_min(1e-12) + margin).mean()


def nearest_half(values: Float[Tensor, "triplets"]) -> Bool[Tensor, "triplets"]:
    """Which triplets belong to the half of the candidates nearest to their anchors ("top" in Eq. 12-13).

    These are the B // 2 smallest of B distances, at least one.
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
