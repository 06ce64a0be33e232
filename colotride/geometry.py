"""Distances between embeddings, and the numbers that tell a healthy model from a collapsing one.

Embeddings are L2-normalised, so the Euclidean distance is the chord of two points of the unit sphere. Training may
use the cosine distance 1 - cos = d^2 / 2 instead; both lie in [0, 2].
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

End = Literal["near", "far"]
Weighting = Literal["near", "far", "hard"]
WeightGradient = Literal["detached", "through"]
Metric = Literal["euclidean", "cosine"]


def distances(
    a: Float[Tensor, "*rows dim"], b: Float[Tensor, "*rows dim"], metric: Metric = "euclidean"
) -> Float[Tensor, "*rows"]:
    """Distance d of matching rows, in [0, 2] for unit vectors.

    The Euclidean one is taken from the difference, not from the inner product: close neighbours keep their digits, and
    the gradient at distance 0 is 0 instead of NaN.
    """
    if metric == "cosine":
        return 1 - (a * b).sum(dim=-1)
    return torch.linalg.vector_norm(a - b, dim=-1)


def offset_distances(
    a: Float[Tensor, "*rows dim"], b: Float[Tensor, "*rows dim"], metric: Metric = "euclidean"
) -> Float[Tensor, "*rows"]:
    """Distance of matching rows that has a gradient where they are equal: |a - b + 1e-6|, as in `F.pairwise_distance`.

    An objective that is to move embeddings away from where they start needs it; elsewhere it differs from `distances`
    by at most 1e-6 sqrt(dim). The cosine distance is half the square, which is the same for unit vectors.
    """
    offset = functional.pairwise_distance(a, b)
    return offset.square() / 2 if metric == "cosine" else offset


def distance_matrix(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"], metric: Metric = "euclidean"
) -> Float[Tensor, "rows columns"]:
    """All distances between unit vectors, in [0, 2], by one matrix product: d = sqrt(2 - 2 a.b), or 1 - a.b.

    The squared Euclidean distance is kept above 1e-12, so that the gradient stays finite where embeddings are equal.
    """
    if metric == "cosine":
        return 1 - a @ b.T
    return (2 - 2 * a @ b.T).clamp_min(1e-12).sqrt()


def centred_distance_matrix(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"], squares: Float[Tensor, "columns"]
) -> Float[Tensor, "rows columns"]:
    """All Euclidean distances by one matrix product, of embeddings from which a centre m near them was subtracted.

    d^2 = |a - m|^2 + |b - m|^2 - 2 (a - m).(b - m). What rounding costs is a share of the embeddings' own extent, not of
    the unit sphere: robust models shrink theirs, and sqrt(2 - 2 a.b) has no digits left there.

    Args:
        a: one side, minus m; any vector serves, the mean of the embeddings is a good one.
        b: the other side, minus m; a gallery, which every step of an attack compares with.
        squares: squared lengths of `b`.
    """
    squares = a.square().sum(dim=1)[:, None] + squares - 2 * a @ b.T
    # Above 0, where the root has no gradient.
    return squares.clamp_min(torch.finfo(squares.dtype).eps ** 2).sqrt()


def hardness(
    anchor_positive: Float[Tensor, "triplets"], anchor_negative: Float[Tensor, "triplets"]
) -> Float[Tensor, "triplets"]:
    """Hardness H = d(A,P) - d(A,N) of each triplet (Eq. 2), in [-2, 2]; easy below 0, hard above."""
    return anchor_positive - anchor_negative


def attention_weights(
    values: Float[Tensor, "triplets"], attention_factor: float, end: End
) -> Float[Tensor, "triplets"]:
    """Weights w of Eq. 6-7 for the distances of a batch; they are positive and sum to 1.

    `near`: w_i ~ exp(-lambda (d_i - min d)), the paper's words ("a larger weight for samples near the anchor").
    `far`: w_i ~ exp(+lambda (d_i - max d)), what the authors' released follow-up code computes.
    Subtracting the extreme value changes nothing in a softmax except that nothing overflows.

    Args:
        values: distances d(A_i, X_i), in [0, 2].
        attention_factor: lambda >= 0; 0 gives all the same weight.
        end: which end of the distances gets the attention.
    """
    sign = -1.0 if end == "near" else 1.0
    return torch.softmax(sign * attention_factor * values, dim=0)


def weighted_distance(
    values: Float[Tensor, "triplets"],
    attention_factor: float,
    end: End = "near",
    gradient: WeightGradient = "detached",
) -> Float[Tensor, ""]:
    """Weighted mean distance d_w = sum_i w_i d_i (one term of Eq. 5), in [0, 2].

    With `gradient="detached"` the weights count as constants. Through the weights ("through", the released code) a
    near distance that grows loses weight, so that for lambda d > 1 the gradient of d_w points the wrong way.
    """
    weights = attention_weights(values, attention_factor, end)
    if gradient == "detached":
        weights = weights.detach()
    return (weights * values).sum()


def attended_ends(weighting: Weighting) -> tuple[End, End]:
    """Which end of d(A,P), and which of d(A,N), gets the attention.

    `near` and `far` look at the same end of both. `hard` looks at far positives and near negatives, the hardest
    triplets: only then can C of the clean batch turn positive on semi-hard triplets, each of which has d(A,P) < d(A,N).
    """
    return ("far", "near") if weighting == "hard" else (weighting, weighting)


def collapseness(
    anchor_positive: Float[Tensor, "triplets"],
    anchor_negative: Float[Tensor, "triplets"],
    attention_factor: float,
    weighting: Weighting = "near",
    gradient: WeightGradient = "detached",
) -> Float[Tensor, ""]:
    """Collapseness C = sum_i w_i^P d(A_i,P_i) - sum_i w_i^N d(A_i,N_i) (Eq. 5), in [-2, 2].

    C > 0: collapse is impending. C <= 0: the model is healthy. lambda = 0 gives the mean hardness.

    Args:
        anchor_positive: d(A_i, P_i).
        anchor_negative: d(A_i, N_i).
        attention_factor: lambda of Eq. 6-7, >= 0.
        weighting: see `attended_ends`.
        gradient: see `weighted_distance`.
    """
    positive, negative = attended_ends(weighting)
    return weighted_distance(anchor_positive, attention_factor, positive, gradient) - weighted_distance(
        anchor_negative, attention_factor, negative, gradient
    )


def separability(
    anchor_positive: Float[Tensor, "triplets"], anchor_negative: Float[Tensor, "triplets"]
) -> Float[Tensor, ""]:
    """Separability (mean d(A,N) - mean d(A,P)) / mean d(A,P) of a batch (Fig. 3, top), >= -1.

    The quotient cancels a common shrinkage of the embedding space: scaling every distance changes nothing. Entangled
    classes give 0. Where every d(A,P) is 0 the denominator is kept at 1e-12.
    """
    positive, negative = anchor_positive.mean(), anchor_negative.mean()
    return (negative - positive) / positive.clamp_min(1e-12)


def relative_shift(shift: Float[Tensor, "images"], anchor_positive: Float[Tensor, "triplets"]) -> Float[Tensor, ""]:
    """Embedding shift mean d(f(x~), f(x)) over mean d(A,P) (Fig. 4), >= 0; free of shrinkage like `separability`.

    Args:
        shift: d(f(x~), f(x)) of every perturbed image.
        anchor_positive: d(A_i, P_i).
    """
    return shift.mean() / anchor_positive.mean().clamp_min(1e-12)
