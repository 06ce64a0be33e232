"""Benign retrieval: recall@k, mAP, mAP@R and NMI.

At equal distance a match counts as farther than a non-match: a model that maps everything to one point retrieves
nothing, and gets no credit for it.
"""

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from colotride.evaluation.gallery import Gallery, query_blocks
from colotride.randomness import derive_seed

FEW_MATCHES = 16
"""Up to so many matches, counting the images before each of them is faster than placing every image among them."""

ITERATIONS = 20
"""Of each k-means."""


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

    Only the matches are sorted; every other image is counted before one of them. That is what makes a gallery of many
    small classes cheap.

    Returns:
        Positions, counted from 1, infinite beyond a query's last match; and the number of matches per query.
    """
    exact = gallery.exact
    queries = queries.to(exact.labels.device)
    asking = exact.points[queries]
    to_gallery = exact.squares(asking)
    members, is_match = exact.members(queries)
    relevant = is_match.sum(dim=1)
    most = int(relevant.max())
    to_matches = to_gallery.gather(1, members).masked_fill_(~is_match, torch.inf)
    matches = to_matches.sort(dim=1).values[:, :most].contiguous()
    # The query itself and its matches go behind every match; what is as far away as a match comes before it.
    others = to_gallery.scatter_(1, members, torch.inf).sub_(exact.tolerance(asking))
    nearer_others = _nearer(others, matches)
    order = torch.arange(1, most + 1, device=queries.device)
    positions = (nearer_others + order).to(matches.dtype)
    return positions.masked_fill(order > relevant[:, None], torch.inf), relevant


def _nearer(
    others: Float[Tensor, "block images"], matches: Float[Tensor, "block matches"]
) -> Int[Tensor, "block matches"]:
    """How many of the others are at most as far away as each match."""
    most = matches.shape[1]
    if most <= FEW_MATCHES:
        return torch.stack([(others <= matches[:, [one]]).sum(dim=1) for one in range(most)], dim=1)
    places = torch.searchsorted(matches, others)
    counts = torch.zeros(len(others), most + 1, dtype=torch.int64, device=others.device)
    counts.scatter_add_(1, places, counts.new_ones(1, 1).expand_as(places))
    return counts.cumsum(dim=1)[:, :most]


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
