"""Triplets for the anchor-positive pairs of a batch: which positive, and which negative of the same batch.

Every miner orders the 2 B images of the batch, at random or by their distances, and each anchor takes the first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import AfterValidator
from torch import Tensor

from colotride.errors import DataError
from colotride.geometry import Metric, distance_matrix
from colotride.registry import MINERS, register_miner

MinerName = Annotated[str, AfterValidator(MINERS.check)]
"""Name of a registered miner."""

NEAREST_WEIGHTED = 0.5
"""Distance-weighted mining counts a nearer negative as this near: its weight would explode (Wu et al., 2017)."""

FARTHEST_WEIGHTED = 1.4
"""Distance-weighted mining ignores negatives that are farther away: they no longer add to the loss."""


@dataclass(frozen=True)
class Mined:
    """One positive and one negative per anchor, and how often the miner found no negative that met its condition."""

    positives: Int[Tensor, "pairs"]
    """Position of each anchor's positive among the 2 B images of the batch, anchors first."""
    negatives: Int[Tensor, "pairs"]
    """Position of each anchor's negative."""
    unqualified: Float[Tensor, ""]
    """Share of the anchors for which no negative qualified and any other one was drawn, in [0, 1]."""


@dataclass(frozen=True)
class Candidates:
    """What a miner sees: anchors in rows, the 2 B images of the batch in columns."""

    distances: Float[Tensor, "pairs images"]
    to_positive: Float[Tensor, "pairs one"]
    """d(A, P) from each anchor to its partner, as a column."""
    own_class: Bool[Tensor, "pairs images"]
    """Images of the anchor's class, the anchor itself left out."""
    other_class: Bool[Tensor, "pairs images"]
    draw: Float[Tensor, "pairs images"]
    """Uniform in [0, 1)."""
    margin: float
    dim: int
    """Dimensions of the embedding."""


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
    metric: Metric = "euclidean",
) -> Mined:
    """Choose a positive and a negative for every anchor from the images of the batch.

    - `random`: any negative.
    - `semi-hard`: d(A,P) < d(A,N) < d(A,P) + margin, uniformly among those (Schroff et al., 2015).
    - `softhard`: a negative nearer than the farthest positive and a positive farther than the nearest negative, each
      uniformly (Roth et al., 2020); the anchor is never its own positive.
    - `distance-weighted`: with weight 1 / q(d), q the density of distances on the sphere (Wu et al., 2017).
    - `hardest`: the nearest negative.

    Where nothing qualifies, any negative is drawn (for `softhard`, the anchor's partner is the positive). Random
    numbers come from the CPU, so that every device mines the same triplets.

    Args:
        miner: which images qualify.
        anchors: embeddings of the anchors.
        positives: embeddings of their partners; together they are the candidates, anchors first.
        labels: class of each pair, on the CPU.
        margin: width of the semi-hard band.
        generator: CPU generator.
        metric: of the distances.

    Raises:
        DataError: an anchor has no negative at all.
    """
    check_classes(labels)
    count, device = len(labels), anchors.device
    labels = labels.to(device)
    images = torch.cat([anchors, positives])
    to_images = distance_matrix(anchors, images, metric)
    same = labels[:, None] == labels.repeat(2)[None, :]
    partner = torch.arange(count, 2 * count, device=device)
    candidates = Candidates(
        distances=to_images,
        to_positive=to_images.gather(1, partner[:, None]),
        own_class=same & (torch.arange(2 * count, device=device) != torch.arange(count, device=device)[:, None]),
        other_class=~same,
        draw=torch.rand(count, 2 * count, generator=generator).to(device),
        margin=margin,
        dim=anchors.shape[1],
    )
    kind = MINERS[miner]
    negatives, qualified = _prefer(candidates, *kind.negatives(candidates))
    chosen = partner if kind.positives is None else _positives(candidates, kind.positives, partner, generator)
    return Mined(chosen, negatives, 1 - qualified.to(to_images.dtype).mean())


def shrinking_margin(margin: float, epoch: int, epochs: int) -> float:
    """Width of the semi-hard band in an epoch, margin_e = margin (1 - e / (2E))^2 (Eq. 32).

    Args:
        margin: the preset margin.
        epoch: e, counted from 0.
        epochs: E, of the whole run.
    """
    return margin * (1 - epoch / (2 * epochs)) ** 2


Preference = Callable[[Candidates], tuple[Bool[Tensor, "pairs images"], Float[Tensor, "pairs images"]]]
"""Which images qualify, and how they are ordered among themselves: the first in the order is taken."""


@register_miner("random")
def _any(candidates: Candidates) -> tuple[Tensor, Tensor]:
    return candidates.other_class, candidates.draw


@register_miner("semi-hard")
def _semi_hard(candidates: Candidates) -> tuple[Tensor, Tensor]:
    beyond = candidates.distances > candidates.to_positive
    within = candidates.distances < candidates.to_positive + candidates.margin
    return candidates.other_class & beyond & within, candidates.draw


def _harder_positives(candidates: Candidates) -> tuple[Tensor, Tensor]:
    nearest = candidates.distances.masked_fill(~candidates.other_class, torch.inf).amin(dim=1, keepdim=True)
    return candidates.own_class & (candidates.distances > nearest), candidates.draw


@register_miner("softhard", positives=_harder_positives)
def _softhard(candidates: Candidates) -> tuple[Tensor, Tensor]:
    farthest = candidates.distances.masked_fill(~candidates.own_class, -torch.inf).amax(dim=1, keepdim=True)
    return candidates.other_class & (candidates.distances < farthest), candidates.draw


@register_miner("hardest")
def _hardest(candidates: Candidates) -> tuple[Tensor, Tensor]:
    return candidates.other_class, -candidates.distances


@register_miner("distance-weighted")
def _distance_weighted(candidates: Candidates) -> tuple[Tensor, Tensor]:
    near = candidates.distances.clamp(NEAREST_WEIGHTED, FARTHEST_WEIGHTED)
    # log 1/q(d), q(d) ~ d^(n-2) (1 - d^2/4)^((n-3)/2); adding Gumbel noise makes the largest a draw by these weights.
    log_weight = (2 - candidates.dim) * near.log() - (candidates.dim - 3) / 2 * (1 - near.square() / 4).log()
    gumbel = -(-candidates.draw.clamp_min(1e-20).log()).clamp_min(1e-20).log()
    return candidates.other_class & (candidates.distances < FARTHEST_WEIGHTED), log_weight + gumbel


def _prefer(candidates: Candidates, qualified: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the qualified images of each anchor, or any negative; and whether one qualified."""
    qualified = qualified & candidates.other_class
    best = order.masked_fill(~qualified, -torch.inf).argmax(dim=1)
    fallback = candidates.draw.masked_fill(~candidates.other_class, -torch.inf).argmax(dim=1)
    found = qualified.any(dim=1)
    return torch.where(found, best, fallback), found


def _positives(
    candidates: Candidates, preference: Preference, partner: Int[Tensor, "pairs"], generator: torch.Generator
) -> Int[Tensor, "pairs"]:
    """The positive of each anchor that a preference takes, or its partner where none qualifies."""
    draw = torch.rand(candidates.draw.shape, generator=generator).to(candidates.draw.device)
    qualified, order = preference(replace(candidates, draw=draw))
    qualified = qualified & candidates.own_class
    chosen = order.masked_fill(~qualified, -torch.inf).argmax(dim=1)
    return torch.where(qualified.any(dim=1), chosen, partner)
