"""Who is attacked with whom: targets are drawn once, before the attack."""

import torch
from jaxtyping import Int
from torch import Tensor

from colotride.evaluation.gallery import Gallery
from colotride.evaluation.ranking import same_and_other
from colotride.evaluation.retrieval import chunks
from colotride.geometry import distance_matrix

TOP_SHARE = 0.01
"""CA- and QA- choose among this share of the gallery, the nearest images."""


def random_others(gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator) -> Int[Tensor, "queries"]:
    """One random image for each, never itself."""
    offset = torch.randint(1, len(gallery), (len(moving),), generator=random)
    return (moving + offset.to(moving.device)) % len(gallery)


def random_among_nearest(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """One random image among the nearest 1 % of the gallery for each, itself left out; at least one image."""
    count = max(1, round(TOP_SHARE * len(gallery)))
    choice = (torch.rand(len(moving), generator=random) * count).long().to(moving.device)
    found = []
    for rows in chunks(torch.arange(len(moving)), len(gallery)):
        nearest = _nearest(gallery, moving[rows], count)
        found.append(nearest.gather(1, choice[rows][:, None])[:, 0])
    return torch.cat(found)


def nearest_others(gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator) -> Int[Tensor, "queries"]:
    """The first result of each image, itself left out."""
    return torch.cat([_nearest(gallery, chunk, 1)[:, 0] for chunk in chunks(moving, len(gallery))])


def nearest_of_other_class(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """The nearest image of another class."""
    found = []
    for chunk in chunks(moving, len(gallery)):
        _, other = same_and_other(gallery, chunk)
        found.append(_distances(gallery, chunk).masked_fill_(~other, torch.inf).argmin(dim=1))
    return torch.cat(found)


def published_unmatch(
    gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator
) -> Int[Tensor, "queries"]:
    """GTM's target as RobRank's code finds it, for the `published` protocol.

    It looks for the nearest image whose class differs from the **first result's** instead of the query's, and takes
    that image's position **among the images of other classes** for its place in the gallery.
    """
    found = []
    for chunk in chunks(moving, len(gallery)):
        to_gallery = _distances(gallery, chunk)
        first = gallery.labels[to_gallery.argmin(dim=1)]
        other = gallery.labels[None, :] != first[:, None]
        nearest = to_gallery.masked_fill_(~other, torch.inf).argmin(dim=1)
        position = other.long().cumsum(dim=1) - 1
        found.append(position.gather(1, nearest[:, None])[:, 0])
    return torch.cat(found)


def _distances(gallery: Gallery, chunk: Tensor) -> Tensor:
    to_gallery = distance_matrix(gallery.embeddings[chunk], gallery.embeddings)
    to_gallery[torch.arange(len(chunk), device=chunk.device), chunk] = torch.inf
    return to_gallery


def _nearest(gallery: Gallery, chunk: Tensor, count: int) -> Tensor:
    return _distances(gallery, chunk).topk(count, largest=False).indices
