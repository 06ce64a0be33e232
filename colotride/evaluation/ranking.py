"""Where one image stands in a result list, and whether the first result is right."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colotride.evaluation.gallery import ExactDistances, Gallery, query_blocks
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
    asking, asked = exact.place(query_embeddings), exact.place(item_embeddings)
    balance = torch.cat(
        [
            _nearer_less_farther(exact, asking[rows], asked[rows], torch.stack([queries[rows], items[rows]], dim=1))
            for rows in query_blocks(torch.arange(len(queries), device=queries.device), len(gallery))
        ]
    )
    return (50 * (1 + balance / (len(gallery) - 2))).to(query_embeddings)


def _nearer_less_farther(
    exact: ExactDistances, asking: Tensor, asked: Tensor, left_out: Int[Tensor, "block 2"]
) -> Int[Tensor, "block"]:
    """How many images are nearer than the item, less how many are farther, two of them left out."""
    ahead = exact.squares(asking).sub_(exact.squares_between(asking, asked))
    tolerance = exact.tolerance(asking)

    def balance(values: Tensor) -> Tensor:
        return (values < -tolerance).sum(dim=1) - (values > tolerance).sum(dim=1)

    return balance(ahead) - balance(ahead.gather(1, left_out))


def first_result_is_match(
    gallery: Gallery, query_embeddings: Float[Tensor, "batch dim"], queries: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """100 where the first result is of the query's class (R@1), else 0; a tie with a non-match counts as a miss."""
    exact = gallery.exact
    asking, queries = exact.place(query_embeddings), queries.to(exact.labels.device)
    found = []
    for rows in query_blocks(torch.arange(len(queries), device=queries.device), len(gallery)):
        to_gallery = exact.squares(asking[rows])
        members, is_match = exact.members(queries[rows])
        nearest_match = to_gallery.gather(1, members).masked_fill_(~is_match, torch.inf).amin(dim=1)
        nearest_other = to_gallery.scatter_(1, members, torch.inf).amin(dim=1)
        found.append(nearest_match < nearest_other - exact.tolerance(asking[rows])[:, 0])
    return 100 * torch.cat(found).to(query_embeddings)


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
    asking = exact.place(query_embeddings)
    found = []
    for rows in query_blocks(torch.arange(len(queries), device=queries.device), len(gallery)):
        to_gallery = exact.squares(asking[rows])
        before = to_gallery <= to_gallery.gather(1, items[rows, None]) + exact.tolerance(asking[rows])
        before.scatter_(1, torch.stack([queries[rows], items[rows]], dim=1), False)
        found.append(before.sum(dim=1) < k)
    return 100 * torch.cat(found).to(query_embeddings)


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
