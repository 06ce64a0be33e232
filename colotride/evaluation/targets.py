"""Who is attacked with whom: targets are drawn once, before the attack."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from colotride.evaluation.gallery import Gallery, query_blocks
from colotride.evaluation.ranking import same_and_other

TOP_SHARE = 0.01
"""CA- and QA- choose among this share of the gallery, the nearest images."""

DrawTargets = Callable[[Gallery, Int[Tensor, "queries"], torch.Generator], Int[Tensor, "queries"]]
"""Chooses a target for every image that moves, before the attack."""


def itself(gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator) -> Int[Tensor, "queries"]:
    """Every image is its own target."""
    return moving


def random_others(gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator) -> Int[Tensor, "queries"]:
    """One random image for each, never itself."""
    offset = torch.randint(1, len(gallery), (len(moving),), generator=random)
    return (moving + offset.to(moving.device)) % len(gallery)


def random_among_nearest(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """One random image among the nearest 1 % of the gallery for each, itself left out; at least one image."""
    return _random_among(max(1, round(len(gallery) * TOP_SHARE)), gallery, moving, random)


def published_among_nearest(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """The same from a pool of the size that RobRank's code takes: 1 % of the gallery rounded down."""
    return _random_among(max(1, int(len(gallery) * TOP_SHARE)), gallery, moving, random)


def nearest_others(gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator) -> Int[Tensor, "queries"]:
    """The first result of each image, itself left out."""
    return torch.cat([_nearest(gallery, block, 1)[:, 0] for block in query_blocks(moving, len(gallery))])


def nearest_of_other_class(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """The nearest image of another class."""
    found = []
    for block in query_blocks(moving, len(gallery)):
        _, other = same_and_other(gallery.exact.labels, block)
        found.append(_squares(gallery, block).masked_fill_(~other, torch.inf).argmin(dim=1))
    return torch.cat(found)


def published_unmatch(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """GTM's target as RobRank's code finds it, for the `published` protocol.

    It looks for the nearest image whose class differs from the **first result's** instead of the query's, and takes
    that image's position **among the images of other classes** for its place in the gallery.
    """
    found = []
    for block in query_blocks(moving, len(gallery)):
        to_gallery = _squares(gallery, block)
        first = gallery.exact.labels[to_gallery.argmin(dim=1)]
        other = gallery.exact.labels[None, :] != first[:, None]
        nearest = to_gallery.masked_fill_(~other, torch.inf).argmin(dim=1)
        position = other.long().cumsum(dim=1) - 1
        found.append(position.gather(1, nearest[:, None])[:, 0])
    return torch.cat(found)


def _random_among(count: int, gallery: Gallery, moving: Tensor, random: torch.Generator) -> Tensor:
    choice = (torch.rand(len(moving), generator=random) * count).long()
    found = []
    for rows in query_blocks(torch.arange(len(moving)), len(gallery)):
        nearest = _nearest(gallery, moving[rows], count)
        found.append(nearest.gather(1, choice[rows][:, None].to(nearest.device))[:, 0])
    return torch.cat(found)


def _squares(gallery: Gallery, block: Tensor) -> Tensor:
    """Squared distances to the gallery, infinite to the image itself."""
    exact = gallery.exact
    block = block.to(exact.labels.device)
    to_gallery = exact.squares(exact.points[block])
    to_gallery[torch.arange(len(block), device=block.device), block] = torch.inf
    return to_gallery


def _nearest(gallery: Gallery, block: Tensor, count: int) -> Tensor:
    return _squares(gallery, block).topk(count, largest=False).indices
