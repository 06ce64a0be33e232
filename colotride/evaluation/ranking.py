"""Where one image stands in a result list, and whether the first result is right."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colotride.evaluation.gallery import Gallery
from colotride.geometry import distances


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
    exact = gallery.exact
    queries, items = queries.to(exact.labels.device), items.to(exact.labels.device)
    rows = torch.arange(len(queries), device=exact.labels.device)
    asking = exact.place(query_embeddings)
    to_item = exact.squares_between(asking, exact.place(item_embeddings))
    # Nearer counts 1, equal 0, farther -1.
    ahead = exact.squares(asking).sub_(to_item)
    nearer = (ahead < -exact.tolerance(asking)).long() - (ahead > exact.tolerance(asking)).long()
    others = len(gallery) - 2
    balance = nearer.sum(dim=1) - nearer[rows, queries] - nearer[rows, items]
    return (50 * (1 + balance / others)).to(query_embeddings)


def first_result_is_match(
    gallery: Gallery, query_embeddings: Float[Tensor, "batch dim"], queries: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """100 where the first result is of the query's class (R@1), else 0; a tie with a non-match counts as a miss."""
    exact = gallery.exact
    asking = exact.place(query_embeddings)
    to_gallery = exact.squares(asking)
    same, other = same_and_other(exact.labels, queries)
    nearest_match = to_gallery.masked_fill(~same, torch.inf).amin(dim=1)
    nearest_other = to_gallery.masked_fill(~other, torch.inf).amin(dim=1)
    return 100 * (nearest_match < nearest_other - exact.tolerance(asking)[:, 0]).to(query_embeddings)


def in_first_results(
    gallery: Gallery,
    query_embeddings: Float[Tensor, "batch dim"],
    queries: Int[Tensor, "batch"],
    items: Int[Tensor, "batch"],
    k: int,
) -> Float[Tensor, "batch"]:
    """100 where an item is among the first k results of its query, else 0; ties count against the item."""
    exact = gallery.exact
    queries, items = queries.to(exact.labels.device), items.to(exact.labels.device)
    rows = torch.arange(len(queries), device=exact.labels.device)
    asking = exact.place(query_embeddings)
    to_gallery = exact.squares(asking)
    before = to_gallery <= to_gallery[rows, items][:, None] + exact.tolerance(asking)
    before[rows, queries] = False
    before[rows, items] = False
    return 100 * (before.sum(dim=1) < k).to(query_embeddings)


def same_and_other(
    labels: Int[Tensor, "images"], queries: Int[Tensor, "batch"]
) -> tuple[Bool[Tensor, "batch images"], Bool[Tensor, "batch images"]]:
    """Which images are matches of each query (itself left out), and which are of other classes.

    Args:
        labels: of the gallery.
        queries: their places in the gallery.
    """
    queries = queries.to(labels.device)
    same = labels[queries][:, None] == labels[None, :]
    other = ~same
    same[torch.arange(len(queries), device=same.device), queries] = False
    return same, other


def embedding_shift(
    gallery: Gallery, embeddings: Float[Tensor, "batch dim"], queries: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Distance of embeddings from where the same images are without perturbation, in [0, 2]."""
    return distances(embeddings, gallery.embeddings[queries])
