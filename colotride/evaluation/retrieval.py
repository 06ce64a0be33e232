"""Benign retrieval: recall@k, mAP, mAP@R and NMI.

At equal distance a match counts as farther than a non-match: a model that maps everything to one point retrieves
nothing, and gets no credit for it.
"""

from collections.abc import Iterator

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from colotride.evaluation.gallery import Gallery
from colotride.randomness import derive_seed

BLOCK_BYTES = 256 * 2**20
"""Memory for one block of distances and what is derived from them."""

BYTES_PER_PAIR = 48
"""Distances, their masked copy, masks, places among the matches."""

ITERATIONS = 20
"""Of each k-means."""


def query_blocks(indices: Int[Tensor, "queries"], gallery_size: int) -> Iterator[Int[Tensor, "block"]]:
    """Cut queries so that the distances of one block to the whole gallery fit into `BLOCK_BYTES`."""
    yield from indices.split(max(1, BLOCK_BYTES // (BYTES_PER_PAIR * gallery_size)))


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
    for block in query_blocks(queries, len(gallery)):
        rows = slice(done, done + len(block))
        done += len(block)
        ranks, relevant = match_ranks(gallery, block)
        found = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
        precision = (found / ranks).nan_to_num(0.0)
        for k in recall_at:
            values[f"R@{k}"][rows] = 100 * (ranks[:, 0] <= k).to(precision.dtype).cpu()
        values["mAP"][rows] = 100 * (precision.sum(dim=1) / relevant).cpu()
        within = ranks <= relevant[:, None]
        values["mAP@R"][rows] = 100 * ((precision * within).sum(dim=1) / relevant).cpu()
    return values


def match_ranks(
    gallery: Gallery, queries: Int[Tensor, "block"]
) -> tuple[Float[Tensor, "block matches"], Int[Tensor, "block"]]:
    """Position of every match in the result list of each query, nearest match first.

    Only the matches are sorted; every other image is counted between two of them. That is what makes a gallery of
    many small classes cheap.

    Returns:
        Positions, counted from 1, infinite beyond a query's last match; and the number of matches per query.
    """
    exact = gallery.exact
    queries = queries.to(exact.labels.device)
    asking = exact.points[queries]
    to_gallery = exact.squares(asking)
    rows = torch.arange(len(queries), device=queries.device)
    same = exact.labels[queries][:, None] == exact.labels[None, :]
    same[rows, queries] = False
    relevant = same.sum(dim=1)
    most = int(relevant.max())
    matches = to_gallery.masked_fill(~same, torch.inf).topk(most, largest=False, sorted=True).values
    # The query itself and its matches go behind every match.
    to_gallery[rows, queries] = torch.inf
    # What is as far away as a match comes before it.
    others = to_gallery.masked_fill_(same, torch.inf).sub_(exact.tolerance(asking))
    nearer_matches = torch.searchsorted(matches, others)
    counts = torch.zeros(len(queries), most + 1, dtype=torch.int64, device=queries.device)
    counts.scatter_add_(1, nearer_matches, torch.ones_like(nearer_matches))
    nearer_others = counts.cumsum(dim=1)[:, :most]
    order = torch.arange(1, most + 1, device=queries.device)
    positions = (nearer_others + order).to(matches.dtype)
    return positions.masked_fill(order > relevant[:, None], torch.inf), relevant


def clusterings(gallery: Gallery, starts: int, seed: int) -> Int[Tensor, "starts images"]:
    """Cluster of every image by k-means with as many clusters as classes, from several random starts.

    Relative to the gallery's centre, so that embeddings that nearly agree keep their digits.
    """
    exact = gallery.exact.points.cpu()
    points = (exact / exact.abs().max().clamp_min(1e-300)).float().contiguous().numpy()
    found = []
    for start in range(starts):
        kmeans = faiss.Kmeans(
            points.shape[1],
            len(gallery.labels.unique()),
            niter=ITERATIONS,
            seed=derive_seed(seed, "start", start) % 2**31,
            min_points_per_centroid=1,
            max_points_per_centroid=2**31 - 1,
        )
        kmeans.train(points)
        _, assigned = kmeans.index.search(points, 1)
        found.append(torch.from_numpy(assigned[:, 0].astype(np.int64)))
    return torch.stack(found)


def nmi(labels: Int[Tensor, "images"], assigned: Int[Tensor, "starts images"]) -> float:
    """Normalised mutual information of classes and clusters, in percent; the mean over the starts.

    One start moves it by several points, which is more than most models differ by.
    """
    # scikit-learn takes as long to import as torch, and most of what this module does needs none of it.
    from sklearn.metrics import normalized_mutual_info_score

    classes = labels.cpu().numpy()
    return 100 * float(np.mean([normalized_mutual_info_score(classes, one.numpy()) for one in assigned]))
