"""Poisoning: k images that an attacker inserts into the gallery, perturbed to be among the first results of many queries.

A candidate attack (CA+), for images that are new and for all queries at once. The queries are divided into k groups by
k-means, each poison is pulled towards one group, and those queries that it was not trained on say how well it does.
"""

import time
from collections.abc import Callable

import faiss
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride.evaluation import ranking
from colotride.evaluation.attacks import embedded
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.measurement import Figures, Measurement, mean
from colotride.evaluation.retrieval import ITERATIONS
from colotride.geometry import distances
from colotride.pgd import Objective, perturb
from colotride.pgd_settings import Budget
from colotride.randomness import derive_seed, generator

FIRST_RESULTS = 10
"""Results among which a poison is looked for."""

MEANING = (
    f"Images were inserted into the gallery, and perturbed to be among the first {FIRST_RESULTS} results of as many queries as "
    "possible; they count as no match. Found is the share of the queries that see one there. Few queries that find one, and "
    "an R@1 near that of the clean gallery, are robust. Unperturbed copies stand beside them."
)


def groups(embeddings: Float[Tensor, "queries dim"], count: int, seed: int) -> Int[Tensor, "queries"]:
    """Divide queries into groups by k-means: the group of each."""
    points = embeddings.detach().cpu().float().contiguous().numpy()
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": 2**31 - 1}
    kmeans = faiss.Kmeans(points.shape[1], count, niter=ITERATIONS, seed=seed % 2**31, **limits)
    kmeans.train(points)
    _, assigned = kmeans.index.search(points, 1)
    return torch.from_numpy(assigned[:, 0]).to(embeddings.device)


def poison_objective(
    queries: Float[Tensor, "queries dim"],
    group: Int[Tensor, "queries"],
    radius: Float[Tensor, "queries"],
) -> Objective:
    """Per poison the mean of relu(d(q, c~) - r(q)) over its group.

    r(q) is the distance of the last of q's first results: the hinge is 0 where the poison is among them.

    Args:
        queries: clean embeddings of the queries.
        group: the poison that each belongs to.
        radius: r(q).
    """

    def losses(moved: Float[Tensor, "poisons dim"]) -> Float[Tensor, "poisons"]:
        hinges = torch.relu(distances(queries, moved[group]) - radius)
        sizes = torch.bincount(group, minlength=len(moved)).clamp_min(1)
        return torch.zeros_like(moved[:, 0]).index_add(0, group, hinges) / sizes

    return losses


def entry_distances(gallery: Gallery, queries: Int[Tensor, "queries"]) -> Float[Tensor, "queries"]:
    """Distance of the last of each query's `FIRST_RESULTS`, itself left out."""
    squares = _squares(gallery, queries)
    last = min(FIRST_RESULTS, len(gallery) - 1)
    return squares.kthvalue(last, dim=1).values.clamp_min(0).sqrt().to(gallery.embeddings)


def poisoned_results(
    gallery: Gallery, poisons: Float[Tensor, "poisons dim"], queries: Int[Tensor, "queries"]
) -> dict[str, Float[Tensor, "queries"]]:
    """What queries see in a gallery with poisons.

    Args:
        gallery: without the poisons.
        poisons: their embeddings.
        queries: places in the gallery of those who ask, each of which leaves itself out.

    Returns:
        `found`: 100 where a poison is among the first `FIRST_RESULTS`, at a tie too, else 0; and `R@1`, where a poison
        counts as an image of another class.
    """
    exact = gallery.exact
    queries = queries.to(exact.labels.device)
    asking = exact.points[queries]
    squares = _squares(gallery, queries)
    placed = exact.place(poisons)
    to_poisons = torch.cdist(asking, placed, compute_mode="donot_use_mm_for_euclid_dist").square().amin(dim=1)
    tolerance = exact.tolerance(asking)[:, 0]
    before = (squares < (to_poisons - tolerance)[:, None]).sum(dim=1)
    same, _ = ranking.same_and_other(exact.labels, queries)
    match = squares.masked_fill(~same, torch.inf).amin(dim=1)
    clean = ranking.first_result_is_match(gallery, gallery.embeddings[queries.to(gallery.labels.device)], queries)
    kept = clean.to(match) * (match < to_poisons - tolerance)
    return {"found": 100.0 * (before < FIRST_RESULTS).to(match), "R@1": kept}


def poisoning_measurement(
    model: nn.Module,
    gallery: Gallery,
    queries: Int[Tensor, "queries"],
    views: Callable[[Tensor], Tensor],
    budget: Budget,
    count: int,
    seed: int,
) -> Measurement:
    """The table of the poisons.

    The images that are inserted are copies of gallery images that are no queries where there are enough; a query is never
    judged by a copy of itself. Which copy goes to which group is chance.

    Args:
        model: maps pixels in [0, 1] to unit vectors.
        gallery: without the poisons.
        queries: their places; half of them are what the poisons are trained on.
        views: what the model sees of images of the gallery, by their places.
        budget: radius, norm, step size and steps.
        count: k, the number of poisons.
        seed: of the halves, the groups and the images that are inserted.
    """
    started, random = time.perf_counter(), generator(seed, "evaluation", "poisoning")
    device = gallery.labels.device
    carriers = choose_carriers(len(gallery), queries.cpu(), count, random)
    judges = queries.cpu()[~torch.isin(queries.cpu(), carriers)]
    shuffled = judges[torch.randperm(len(judges), generator=random)].to(device)
    seen, unseen = shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]
    group = groups(gallery.embeddings[seen], count, derive_seed(seed, "evaluation", "poisoning", "k-means"))
    images = views(carriers)
    objective = poison_objective(gallery.embeddings[seen], group, entry_distances(gallery, seen))
    moved = perturb(model, images, objective, budget)
    clean, poisons = embedded(model, images), embedded(model, moved)
    nowhere = clean[:0]
    rows = {
        "clean gallery": _row(gallery, nowhere, unseen),
        "copies without perturbation": _row(gallery, clean, unseen),
        f"poisons, {len(seen)} queries they were trained on": _row(gallery, poisons, seen),
        f"poisons, {len(unseen)} other queries": _row(gallery, poisons, unseen),
    }
    settings = {"epsilon": budget.epsilon, "norm": budget.norm, "steps": budget.steps, "poisons": count}
    calls = count * (budget.steps + 2)
    return Measurement(
        "poisoning", "Images inserted into the gallery", MEANING, rows, settings, calls, time.perf_counter() - started
    )


def choose_carriers(
    images: int, queries: Int[Tensor, "queries"], count: int, random: torch.Generator
) -> Int[Tensor, "count"]:
    """Images to copy, at random: those that are no queries first."""
    order = torch.randperm(images, generator=random)
    asks = torch.isin(order, queries)
    return order[asks.int().argsort(stable=True)][:count]


def _row(gallery: Gallery, poisons: Tensor, queries: Tensor) -> Figures:
    if len(poisons) == 0:
        clean = ranking.first_result_is_match(gallery, gallery.embeddings[queries], queries)
        return {"found %": 0.0, "R@1": mean(clean)}
    values = poisoned_results(gallery, poisons, queries)
    return {"found %": mean(values["found"]), "R@1": mean(values["R@1"])}


def _squares(gallery: Gallery, queries: Int[Tensor, "queries"]) -> Float[Tensor, "queries images"]:
    exact = gallery.exact
    queries = queries.to(exact.labels.device)
    squares = exact.squares(exact.points[queries])
    return squares.scatter_(1, queries[:, None], torch.inf)
