"""One call that evaluates a model: benign metrics, every attack, ERS and ARS."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.evaluation import parts as pieces
from colotride.evaluation.gallery import Gallery, embed_gallery
from colotride.evaluation.intervals import (
    CLUSTERING_SAMPLES,
    Interval,
    attack_intervals,
    attack_scores,
    benign_intervals,
    nmi_interval,
)
from colotride.evaluation.parts import Part, PartStore, Plan, RunParts, Values, make_plan
from colotride.evaluation.results import Evaluation
from colotride.evaluation.retrieval import clusters, nmi, retrieval_values
from colotride.evaluation.scores import ATTACK_COLUMNS, RESISTANCE_COLUMNS, mean_of
from colotride.evaluation.settings import EvaluationSettings
from colotride.randomness import derive_seed, generator

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole evaluation is behind it."""


@dataclass(frozen=True)
class Prepared:
    """An evaluation before its first attack."""

    plan: Plan
    per_image: dict[str, Tensor]
    """See `Evaluation`."""
    benign: dict[str, float]
    seed: int


def prepare(
    model: nn.Module,
    images: ImageSet,
    settings: EvaluationSettings,
    *,
    image_size: int,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Prepared:
    """Embed the gallery, score it, and draw queries and targets.

    Args and errors: see `evaluate`.
    """
    report = progress or (lambda what, share: None)
    gallery = embed_gallery(
        model,
        images,
        image_size=image_size,
        batch_size=settings.batch_size,
        device=device,
        progress=lambda share: report("gallery", 0.02 * share),
    )
    report("retrieval", 0.02)
    per_image, benign = _benign(gallery, settings, seed)
    report("targets", 0.04)
    return Prepared(make_plan(gallery, settings, image_size, seed), per_image, benign, seed)


def attack(
    prepared: Prepared,
    model: nn.Module,
    images: ImageSet,
    *,
    progress: Progress | None = None,
    keep: Path | None = None,
    resume: bool = False,
    executor: RunParts | None = None,
) -> Evaluation:
    """Run every attack of a prepared evaluation, and score it.

    Args and errors: see `evaluate`.
    """
    started = time.perf_counter()
    report = progress or (lambda what, share: None)
    plan, settings = prepared.plan, prepared.plan.settings
    counter = _Counter(len(plan.queries) * len(plan.targets), report)
    run = executor or pieces.locally(model, images, counter.add)
    values = _attacked(plan, run, keep, resume, counter, tell=executor is not None)
    report("intervals", 1.0)
    scores = {name: float(value) for name, value in attack_scores(values.before, values.after).items()}
    return Evaluation(
        protocol=settings.protocol,
        images=len(images),
        queries=len(plan.queries),
        steps=settings.steps,
        epsilon=settings.epsilon,
        step_size=settings.step_size,
        seed=prepared.seed,
        benign=prepared.benign,
        attacked={name: scores[name] for name in ATTACK_COLUMNS},
        resistance={name: scores[f"ARS {name}"] for name in RESISTANCE_COLUMNS},
        ERS=scores["ERS"],
        ARS=scores["ARS"],
        seconds=time.perf_counter() - started,
        intervals=_intervals(prepared.per_image, values, settings.bootstrap, prepared.seed),
        per_query=_per_query(plan, values),
        per_image=prepared.per_image,
    )


def evaluate(
    model: nn.Module,
    images: ImageSet,
    settings: EvaluationSettings,
    *,
    image_size: int,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
    resume: bool = False,
    executor: RunParts | None = None,
) -> Evaluation:
    """Evaluate a model on a gallery whose images are also the queries.

    The gallery is embedded once; the attacked images and all targets are drawn before the attacks, from the seed
    alone, so that two models with one seed face the same queries.

    Args:
        model: maps pixels in [0, 1] to unit vectors; held in evaluation mode meanwhile, and put back.
        images: the gallery.
        settings: protocol, budgets, size of the perturbation.
        image_size: side of the central crop.
        seed: of the queries, the targets, the clustering and the bootstrap.
        device: where the model is.
        progress: told of every step.
        keep: folder for the parts that are finished, so that they survive an interruption; None keeps nothing.
        resume: whether to take over what `keep` holds of this very evaluation.
        executor: does the parts somewhere else (`colotride.distributed.ray_cluster`); None does them here.

    Raises:
        ModelError: unusable embeddings.
        DataError: a class with a single image, a gallery too small to rank, or an image that cannot be read.
    """
    prepared = prepare(model, images, settings, image_size=image_size, seed=seed, device=device, progress=progress)
    return attack(prepared, model, images, progress=progress, keep=keep, resume=resume, executor=executor)


class _Counter:
    """Turns attacked queries into the share of the evaluation that is behind it."""

    def __init__(self, total: int, report: Progress) -> None:
        self._total, self._report, self._done = total, report, 0

    def add(self, attack: str, count: int) -> None:
        self._done += count
        self._report(attack, 0.05 + 0.95 * self._done / self._total)


def _benign(gallery: Gallery, settings: EvaluationSettings, seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    values = retrieval_values(gallery, torch.arange(len(gallery)), settings.recall_at)
    assigned = clusters(gallery, derive_seed(seed, "evaluation", "k-means"))
    labels = gallery.labels.cpu()
    scores = {name: float(mean_of(one)) for name, one in values.items()}
    return {"label": labels, "cluster": assigned, **values}, scores | {"NMI": nmi(labels, assigned)}


def _attacked(plan: Plan, run: RunParts, keep: Path | None, resume: bool, counter: _Counter, *, tell: bool) -> Values:
    """Do all parts that are not kept already; count whole ones when told to."""
    store = None if keep is None else PartStore(keep, plan.digest())
    if store is not None and not resume:
        store.clear()
    done: dict[Part, Values] = {}
    every = plan.parts()
    for part in every:
        kept = store.load(part) if store is not None and resume else None
        if kept is not None:
            done[part] = kept
            counter.add(part.attack, part.stop - part.start)
    for part, values in run(plan, [part for part in every if part not in done]):
        done[part] = values
        if store is not None:
            store.keep(part, values)
        if tell:
            counter.add(part.attack, part.stop - part.start)
    return pieces.all_values(every, done)


def _intervals(per_image: dict[str, Tensor], values: Values, samples: int, seed: int) -> dict[str, Interval]:
    if samples == 0:
        return {}
    random = generator(seed, "evaluation", "bootstrap")
    labels, assigned = per_image["label"], per_image["cluster"]
    means = {name: one for name, one in per_image.items() if name not in ("label", "cluster")}
    return {
        **benign_intervals(means, samples, random),
        "NMI": nmi_interval(labels, assigned, min(samples, CLUSTERING_SAMPLES), random),
        **attack_intervals(values.before, values.after, samples, random),
    }


def _per_query(plan: Plan, values: Values) -> dict[str, dict[str, Tensor]]:
    found = {}
    for name, after in values.after.items():
        attack = name.partition(":")[0]
        found[name] = {
            "query": plan.queries,
            "target": plan.targets[attack],
            "before": values.before[name],
            "after": after,
        }
    return found
