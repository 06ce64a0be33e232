"""Benign retrieval: recall@k, mAP, mAP@R and NMI.

At equal distance a match counts as farther than a non-match: a model that maps everything to one point retrieves
nothing, and gets no credit for it.
"""

from collections.abc import Iterator

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from colotride.evaluation.gallery import Gallery
from colotride.geometry import distance_matrix

CHUNK_BYTES = 256 * 2**20
"""Memory for one chunk of distances and what is derived from them."""

BYTES_PER_PAIR = 32
"""Distances, their masked copy, masks, places among the matches."""


def chunks(indices: Int[Tensor, "queries"], gallery_size: int) -> Iterator[Int[Tensor, "chunk"]]:
    """Cut queries so that the distances of one chunk to the whole gallery fit into `CHUNK_BYTES`."""
    yield from indices.split(max(1, CHUNK_BYTES // (BYTES_PER_PAIR * gallery_size)))


def retrieval_values(
    gallery: Gallery, queries: Int[Tensor, "queries"], recall_at: tuple[int, ...]
) -> dict[str, Float[Tensor, "queries"]]:
    """R@k for every k, average precision over the whole list (mAP) and over the first R results (mAP@R), per query.

    Each query leaves itself out. In percent; the mean over the queries is the score.

    Args:
        gallery: every class has two images or more.
        queries: indices of the images that ask.
        recall_at: the k of R@k.
    """
    names = [*(f"R@{k}" for k in recall_at), "mAP", "mAP@R"]
    # Written into place: small results that are kept between large ones would pin gigabytes of the heap.
    values = {name: torch.empty(len(queries)) for name in names}
    done = 0
    for chunk in chunks(queries, len(gallery)):
        rows = slice(done, done + len(chunk))
        done += len(chunk)
        ranks, relevant = match_ranks(gallery, chunk)
        found = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
        precision = (found / ranks).nan_to_num(0.0)
        for k in recall_at:
            values[f"R@{k}"][rows] = 100 * (ranks[:, 0] <= k).to(precision.dtype).cpu()
        values["mAP"][rows] = 100 * (precision.sum(dim=1) / relevant).cpu()
        within = ranks <= relevant[:, None]
        values["mAP@R"][rows] = 100 * ((precision * within).sum(dim=1) / relevant).cpu()
    return values


def match_ranks(
    gallery: Gallery, queries: Int[Tensor, "chunk"]
) -> tuple[Float[Tensor, "chunk matches"], Int[Tensor, "chunk"]]:
    """Position of every match in the result list of each query, nearest match first.

    Only the matches are sorted; every other image is counted between two of them. That is what makes a gallery of
    many small classes cheap.

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
    # The query itself and its matches go behind every match.
    to_gallery[rows, queries] = torch.inf
    others = to_gallery.masked_fill_(same, torch.inf)
    nearer_matches = torch.searchsorted(matches, others)
    counts = torch.zeros(len(queries), most + 1, dtype=torch.int64, device=queries.device)
    counts.scatter_add_(1, nearer_matches, torch.ones_like(nearer_matches))
    nearer_others = counts.cumsum(dim=1)[:, :most]
    order = torch.arange(1, most + 1, device=queries.device)
    positions = (nearer_others + order).to(matches.dtype)
    return positions.masked_fill(order > relevant[:, None], torch.inf), relevant


def clusters(gallery: Gallery, seed: int) -> Int[Tensor, "images"]:
    """Cluster of every image, by k-means with as many clusters as classes."""
    embeddings = gallery.embeddings.cpu().contiguous().numpy()
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        len(gallery.labels.unique()),
        niter=20,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=2**31 - 1,
    )
    kmeans.train(embeddings)
    _, assigned = kmeans.index.search(embeddings, 1)
    return torch.from_numpy(assigned[:, 0].astype(np.int64))


def nmi(labels: Int[Tensor, "images"], assigned: Int[Tensor, "images"]) -> float:
    """Normalised mutual information of classes and clusters, in percent."""
    return 100 * float(normalized_mutual_info_score(labels.cpu().numpy(), assigned.numpy()))
