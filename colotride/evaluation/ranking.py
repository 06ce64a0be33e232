"""Where one image stands in a result list, and whether the first result is right."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colotride.evaluation.gallery import Gallery
from colotride.geometry import distance_matrix, distances


def percentile_rank(
    gallery: Gallery,
    query_embeddings: Float[Tensor, "batch dim"],
    item_embeddings: Float[Tensor, "batch dim"],
    queries: Int[Tensor, "batch"],
    items: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """Rank of one item for each query, in percent of the gallery: 0 is the best place, a random one is 50 on average.

    The share of the **other** images (neither the query nor the item) that are nearer to the query than the item;
    ties count half, so that a model that maps everything to one point ranks everything at 50.

    Args:
        gallery: clean embeddings.
        query_embeddings: of the queries, clean or perturbed.
        item_embeddings: of the items, clean or perturbed.
        queries: the queries' own places in the gallery.
        items: the items' own places in the gallery.
    """
    rows = torch.arange(len(queries), device=gallery.labels.device)
    to_gallery = distance_matrix(query_embeddings, gallery.embeddings)
    to_item = (2 - 2 * (query_embeddings * item_embeddings).sum(dim=1)).clamp_min(1e-12).sqrt()[:, None]
    # The two images that do not count are put behind every other one.
    to_gallery[rows, queries] = torch.inf
    to_gallery[rows, items] = torch.inf
    places = (to_gallery < to_item).sum(dim=1) + (to_gallery == to_item).sum(dim=1) / 2
    return 100 * places / (len(gallery) - 2)


def first_result_is_match(
    gallery: Gallery, query_embeddings: Float[Tensor, "batch dim"], queries: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """100 where the first result is of the query's class (R@1), else 0; a tie with a non-match counts as a miss."""
    to_gallery = distance_matrix(query_embeddings, gallery.embeddings)
    same, other = same_and_other(gallery, queries)
    nearest_match = to_gallery.masked_fill(~same, torch.inf).amin(dim=1)
    nearest_other = to_gallery.masked_fill(~other, torch.inf).amin(dim=1)
    return 100 * (nearest_match < nearest_other).float()


def in_first_results(
    gallery: Gallery,
    query_embeddings: Float[Tensor, "batch dim"],
    queries: Int[Tensor, "batch"],
    items: Int[Tensor, "batch"],
    k: int,
) -> Float[Tensor, "batch"]:
    """100 where an item is among the first k results of its query, else 0; ties count against the item."""
    rows = torch.arange(len(queries), device=gallery.labels.device)
    to_gallery = distance_matrix(query_embeddings, gallery.embeddings)
    before = to_gallery <= to_gallery[rows, items][:, None]
    before[rows, queries] = False
    before[rows, items] = False
    return 100 * (before.sum(dim=1) < k).float()


def same_and_other(
    gallery: Gallery, queries: Int[Tensor, "batch"]
) -> tuple[Bool[Tensor, "batch images"], Bool[Tensor, "batch images"]]:
    """Which images are matches of each query (itself left out), and which are of other classes."""
    same = gallery.labels[queries][:, None] == gallery.labels[None, :]
    other = ~same
    same[torch.arange(len(queries), device=same.device), queries] = False
    return same, other


def embedding_shift(
    gallery: Gallery, embeddings: Float[Tensor, "batch dim"], queries: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Distance of embeddings from where the same images are without perturbation, in [0, 2]."""
    return distances(embeddings, gallery.embeddings[queries])
