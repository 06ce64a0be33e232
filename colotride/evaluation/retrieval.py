"""Benign retrieval: recall@k, mAP, mAP@R and NMI.

At equal distance a match counts as farther than a non-match: a model that maps everything to one point retrieves
nothing, and gets no credit for it.
"""

from collections.abc import Iterator

import faiss
import torch
from jaxtyping import Float, Int
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from colotride.evaluation.gallery import Gallery
from colotride.geometry import distance_matrix

CHUNK_BYTES = 256 * 2**20
"""Memory for one chunk of distances and what is derived from them."""

BYTES_PER_PAIR = 32
"""Distances, their sorted copy with indices, masks."""


def chunks(indices: Int[Tensor, "queries"], gallery_size: int) -> Iterator[Int[Tensor, "chunk"]]:
    """Cut queries so that the distances of one chunk to the whole gallery fit into `CHUNK_BYTES`."""
    yield from indices.split(max(1, CHUNK_BYTES // (BYTES_PER_PAIR * gallery_size)))


def retrieval_scores(gallery: Gallery, queries: Int[Tensor, "queries"], recall_at: tuple[int, ...]) -> dict[str, float]:
    """R@k for every k, mAP over the whole list and mAP@R, in percent; each query leaves itself out.

    Args:
        gallery: every class has two images or more.
        queries: indices of the images that ask.
        recall_at: the k of R@k.
    """
    totals = dict.fromkeys([*(f"R@{k}" for k in recall_at), "mAP", "mAP@R"], 0.0)
    for chunk in chunks(queries, len(gallery)):
        ranks, relevant = match_ranks(gallery, chunk)
        found = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
        precision = (found / ranks).nan_to_num(0.0)
        for k in recall_at:
            totals[f"R@{k}"] += float((ranks[:, 0] <= k).sum())
        totals["mAP"] += float((precision.sum(dim=1) / relevant).sum())
        within = ranks <= relevant[:, None]
        totals["mAP@R"] += float(((precision * within).sum(dim=1) / relevant).sum())
    return {name: 100 * total / len(queries) for name, total in totals.items()}


def match_ranks(
    gallery: Gallery, queries: Int[Tensor, "chunk"]
) -> tuple[Float[Tensor, "chunk matches"], Int[Tensor, "chunk"]]:
    """Position of every match in the result list of each query, nearest match first.

    Returns:
        Positions, counted from 1, infinite beyond a query's last match; and the number of matches per query.
    """
    queries = queries.to(gallery.labels.device)
    to_gallery = distance_matrix(gallery.embeddings[queries], gallery.embeddings)
    rows = torch.arange(len(queries), device=queries.device)
    same = gallery.labels[queries][:, None] == gallery.labels[None, :]
    same[rows, queries] = False
    relevant = same.sum(dim=1)
    most = int(relevant.max())
    matches = to_gallery.masked_fill(~same, torch.inf).topk(most, largest=False, sorted=True).values
    to_gallery[rows, queries] = torch.inf
    others = to_gallery.masked_fill_(same, torch.inf).sort(dim=1).values
    nearer_others = torch.searchsorted(others, matches, right=True)
    order = torch.arange(1, most + 1, device=queries.device)
    positions = (nearer_others + order).to(matches.dtype)
    return positions.masked_fill(order > relevant[:, None], torch.inf), relevant


def nmi(gallery: Gallery, seed: int) -> float:
    """Normalised mutual information of the classes and a k-means clustering with as many clusters, in percent."""
    embeddings = gallery.embeddings.cpu().contiguous().numpy()
    clusters = len(gallery.labels.unique())
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        clusters,
        niter=20,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=2**31 - 1,
    )
    kmeans.train(embeddings)
    _, assigned = kmeans.index.search(embeddings, 1)
    return 100 * float(normalized_mutual_info_score(gallery.labels.cpu().numpy(), assigned[:, 0]))
