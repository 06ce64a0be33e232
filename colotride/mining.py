"""Negatives for the anchor-positive pairs of a batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from colotride.errors import DataError
from colotride.geometry import distance_matrix

MinerName = Literal["random", "semi-hard"]


@dataclass(frozen=True)
class MinedNegatives:
    """One negative per anchor, and how often the miner found none that met its condition."""

    indices: Int[Tensor, "pairs"]
    """Position of each anchor's negative among the 2B images of the batch."""
    unqualified: Float[Tensor, ""]
    """Share of the anchors for which no negative qualified and any other one was drawn, in [0, 1]."""


def check_classes(labels: Int[Tensor, "pairs"]) -> None:
    """Refuse a batch in which an anchor has no negative.

    Args:
        labels: the class of each anchor-positive pair.

    Raises:
        DataError: all pairs are of one class.
    """
    if len(labels) == 0 or bool((labels == labels[0]).all()):
        classes = sorted(set(labels.tolist()))
        raise DataError(
            f"a batch of {len(labels)} pairs holds only class {classes}: no anchor has a negative; "
            "use more pairs per batch or training data of two classes or more"
        )


def mine(
    miner: MinerName,
    anchors: Float[Tensor, "pairs dim"],
    positives: Float[Tensor, "pairs dim"],
    labels: Int[Tensor, "pairs"],
    margin: float,
    generator: torch.Generator,
) -> MinedNegatives:
    """Draw one negative for every anchor-positive pair from the images of the other classes in the batch.

    `random`: any. `semi-hard`: one with d(A,P) < d(A,N) < d(A,P) + margin, uniformly among those; any, where there is
    none. The random numbers come from the CPU, so that every device mines the same triplets.

    Args:
        miner: which negatives qualify.
        anchors: embeddings of the anchors.
        positives: embeddings of their positives; together they are the candidates, anchors first.
        labels: class of each pair, on the CPU.
        margin: width of the semi-hard band.
        generator: CPU generator.

    Returns:
        Positions among the candidates `cat([anchors, positives])`, and the share of anchors without a qualified one.

    Raises:
        DataError: an anchor has no negative at all.
    """
    check_classes(labels)
    labels = labels.to(anchors.device)
    candidates = torch.cat([anchors, positives])
    draw = torch.rand(len(labels), len(candidates), generator=generator).to(anchors.device)
    other_class = labels[:, None] != labels.repeat(2)[None, :]
    qualified = other_class
    if miner == "semi-hard":
        to_candidates = distance_matrix(anchors, candidates)
        to_positive = to_candidates.diagonal(offset=len(labels))[:, None]
        qualified = other_class & (to_candidates > to_positive) & (to_candidates < to_positive + margin)
    # One draw serves both: a qualified negative always outranks an unqualified one, which outranks the own class.
    preference = draw + other_class.to(draw.dtype) + qualified.to(draw.dtype)
    return MinedNegatives(preference.argmax(dim=1), (~qualified.any(dim=1)).to(anchors.dtype).mean())


def shrinking_margin(margin: float, epoch: int, epochs: int) -> float:
    """Width of the semi-hard band in an epoch, margin_e = margin (1 - e / (2E))^2 (Eq. 32).

    Args:
        margin: the preset margin.
        epoch: e, counted from 0.
        epochs: E, the whole run's.
    """
    return margin * (1 - epoch / (2 * epochs)) ** 2
