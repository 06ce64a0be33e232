"""Evaluations: what is not a pass through the network against a loop over queries, and the whole against its passes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch.nn import functional

from colotride.data.base import InMemoryImages
from colotride.evaluation import ranking
from colotride.evaluation.chunks import make_plan
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.gallery import Gallery, in_batches
from colotride.evaluation.retrieval import clusterings, nmi, retrieval_values
from colotride.evaluation.scores import RANK_GOALS
from colotride.evaluation.settings import EvaluationSettings, Protocol
from colotride.evaluation.strong import PASSES, ensemble
from colotride.models import TWO_CONVOLUTIONS, ModelSettings, build_model
from colotride.pgd import frozen
from scripts.benchmarks.timing import ratio, side_by_side

DIM, IMAGES_PER_CLASS, BATCH, ATTACKED = 512, 5, 128, 2000
"""As on SOP: embeddings of 512 dimensions, about five images in a class. Then the batch, and the query budget."""

ALL_QUERIES = 100_000
"""Images up to which all of them ask."""


@dataclass(frozen=True)
class GalleryRow:
    """All work of an evaluation that is not a pass through the network, on one gallery."""

    images: int
    queries: int
    """Of the benign scores; at most `ATTACKED` are attacked."""
    seconds: float
    peak_mib: float
    """Extra memory at most."""
    loop: float | None
    """How many times faster than a loop over the queries; None where the loop would take too long."""


@dataclass(frozen=True)
class WholeRow:
    """A whole evaluation with the two-convolution net."""

    protocol: str
    images: int
    queries: int
    seconds: float
    over_passes: float
    """Its seconds over those of its passes through the network alone."""


def random_gallery(images: int) -> Gallery:
    """Unit vectors in classes that are somewhat clustered."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(images) // IMAGES_PER_CLASS
    centres = torch.randn(int(labels.max()) + 1, DIM, generator=random)
    noise = torch.randn(images, DIM, generator=random)
    return Gallery(functional.normalize(centres[labels] + 2.5 * noise, dim=1), labels)


def queries_of(images: int) -> int:
    """All images of a gallery ask; of a large one two hundred do."""
    return images if images <= ALL_QUERIES else 200


def without_network(gallery: Gallery) -> None:
    """Benign scores, targets, and the ranks before and after all rank attacks and R@1 after the others.

    A large gallery is not clustered: k-means with a cluster for every class would take days.
    """
    asking = queries_of(len(gallery))
    retrieval_values(gallery, torch.arange(len(gallery))[:: len(gallery) // asking][:asking], (1, 2))
    if asking == len(gallery):
        nmi(gallery.labels, clusterings(gallery, 1, 0))
    perturbation = make_plan(gallery, EvaluationSettings(queries=min(ATTACKED, asking)), 28, seed=0)
    for name, target in perturbation.targets.items():
        for moving, aimed in zip(in_batches(perturbation.queries, BATCH), in_batches(target, BATCH), strict=True):
            for _ in ("before", "after"):
                query, item = gallery.embeddings[moving], gallery.embeddings[aimed]
                if name in RANK_GOALS:
                    ranking.percentile_rank(gallery, query, item, moving, aimed)
                elif name == "GTT":
                    ranking.in_first_results(gallery, query, moving, aimed, 4)
                else:
                    ranking.first_result_is_match(gallery, query, moving)


def loop_over_queries(gallery: Gallery) -> None:
    """The same, as a textbook writes it: one query after the other, one sorted list after the other."""
    embeddings, labels = gallery.embeddings.numpy(), gallery.labels.numpy()
    random = np.random.default_rng(0)
    targets = []
    for query in range(len(labels)):
        order = _result_list(embeddings, query)
        hits = labels[order] == labels[query]
        found = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        _ = hits[0], hits[:2].any(), (found * hits).sum() / hits.sum(), (found * hits)[: hits.sum()].sum() / hits.sum()
        near = order[random.integers(max(1, len(labels) // 100))]
        targets.append((random.integers(len(labels)), near, order[0], order[~hits][0]))
    k_means = KMeans(len(np.unique(labels)), n_init=1, max_iter=20, random_state=0).fit(embeddings)
    normalized_mutual_info_score(labels, k_means.labels_)
    attacks = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES", "LTM", "GTM", "GTT")
    for name in attacks:
        for _ in ("before", "after"):
            for query in range(len(labels)):
                order = _result_list(embeddings, query)
                if name in RANK_GOALS:
                    _ = np.flatnonzero(order == targets[query][0 if name.endswith("+") else 1])
                else:
                    _ = labels[order[0]] == labels[query]


def _result_list(embeddings: NDArray[np.float32], query: int) -> NDArray[np.int64]:
    away = np.linalg.norm(embeddings - embeddings[query], axis=1)
    order = np.argsort(away)
    return order[order != query]


def measure_galleries(sizes: tuple[int, ...], rounds: int, on_run: Callable[[str], None]) -> list[GalleryRow]:
    """Measure galleries of several sizes; the loop runs on the smallest only."""
    rows = []
    for images in sizes:
        gallery = random_gallery(images)
        works: dict[str, Callable[[], None]] = {"ours": partial(without_network, gallery)}
        if images == min(sizes) and images <= ALL_QUERIES:
            works["loop"] = partial(loop_over_queries, gallery)
        # What takes minutes is measured once: warming up does not show in it.
        few = rounds if images <= 2000 else 1
        seen = side_by_side(works, few, torch.device("cpu"), on_run, warm=images <= 2000)
        ours = seen["ours"]
        loop = ratio(seen["loop"], ours) if "loop" in seen else None
        rows.append(GalleryRow(images, queries_of(images), ours.best, ours.peak_bytes / 2**20, loop))
    return rows


def measure_whole(
    images: int,
    queries: int,
    steps: int,
    rounds: int,
    device: torch.device,
    on_run: Callable[[str], None],
    protocol: Protocol = "strict",
) -> WholeRow:
    """Measure an evaluation with the two-convolution net, and its passes alone."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 1, 28, 28), generator=random, dtype=torch.uint8)
    gallery = InMemoryImages("random", pixels, torch.arange(images) % max(2, images // 100))
    settings = ModelSettings(architecture=TWO_CONVOLUTIONS, weights="none")
    model = build_model(settings, channels=1, image_size=28, seed=0).to(device)
    # A radius and steps so small that no attack reaches its goal: a saturated one would end early.
    tiny = 0.01 / 255
    budget = EvaluationSettings(
        protocol=protocol, queries=queries, steps=steps, batch_size=BATCH, epsilon=2 * tiny, step_size=tiny
    )
    batch = (pixels[:BATCH].float() / 255).to(device)

    def whole() -> None:
        evaluate(model, gallery, budget, image_size=28, seed=0, device=device)

    def embed() -> None:
        with frozen(model) as still, torch.no_grad():
            still(batch)

    def perturb() -> None:
        with frozen(model) as still, torch.enable_grad():
            moving = batch.detach().requires_grad_(True)
            torch.autograd.grad(still(moving)[:, 0].sum(), moving)

    seen = side_by_side({"evaluation": whole, "forward": embed, "there and back": perturb}, rounds, device, on_run)
    attacks = 9
    forward, both = seen["forward"].best, seen["there and back"].best
    strong = protocol == "strong"
    ends = attacks * queries * (len(ensemble(2, steps)) if strong else 1)
    steps_back = attacks * queries * steps * (PASSES if strong else 1)
    passes = (forward * (images + ends) + both * steps_back) / BATCH
    whole_seconds = seen["evaluation"].best
    return WholeRow(protocol, images, queries, whole_seconds, whole_seconds / passes)
