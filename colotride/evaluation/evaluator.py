"""One call that evaluates a model: benign metrics, every attack, ERS and ARS."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.evaluation import chunks
from colotride.evaluation.chunks import (
    Chunk,
    ChunkStore,
    EvaluationPlan,
    Executor,
    Values,
    make_plan,
    number_owners,
    run_chunk,
)
from colotride.evaluation.fairness import fairness_measurement
from colotride.evaluation.gallery import Gallery, embed_gallery
from colotride.evaluation.intervals import Interval, attack_intervals, benign_intervals, nmi_interval
from colotride.evaluation.record import CLUSTER, Convergence, CurvePoint
from colotride.evaluation.results import Evaluation
from colotride.evaluation.retrieval import clusterings, nmi, retrieval_values
from colotride.evaluation.scores import RESISTANCE_COLUMNS, mean_of, resistance_of, scores_of
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.strong import trace_steps
from colotride.randomness import derive_seed, generator

Progress = Callable[[str, float], None]
"""Called with what is being done and which share of the whole evaluation is behind it."""


@dataclass(frozen=True)
class CleanEvaluation:
    """The part of an evaluation that needs no attack, and the plan of the attacks."""

    plan: EvaluationPlan
    per_image: dict[str, Tensor]
    """See `Evaluation`."""
    benign: dict[str, float]


def evaluate_clean(
    model: nn.Module,
    images: ImageSet,
    settings: EvaluationSettings,
    *,
    image_size: int,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> CleanEvaluation:
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
    return CleanEvaluation(make_plan(gallery, settings, image_size, seed), per_image, benign)


def evaluate_attacks(
    clean: CleanEvaluation,
    model: nn.Module,
    images: ImageSet,
    *,
    progress: Progress | None = None,
    partial_results: Path | None = None,
    resume: bool = False,
    executor: Executor[Any, Any] | None = None,
) -> Evaluation:
    """Run every attack that an evaluation has planned, and score it.

    Args and errors: see `evaluate`.
    """
    started = time.perf_counter()
    report = progress or (lambda what, share: None)
    plan, settings = clean.plan, clean.plan.settings
    counter = _Counter(len(plan.queries) * len(plan.targets) * len(settings.all_radii), report)
    if executor is None:
        here = chunks.in_process(model, images)
        run = partial(here, partial(run_chunk, on_batch=counter.add))
    else:
        run = partial(executor, run_chunk)
    by_radius = _attacked(plan, run, partial_results, resume, counter, count_chunks=executor is not None)
    report("intervals", 1.0)
    resistance = resistance_of(settings.protocol)
    points = [
        _curve_point(radius, values, settings, plan.seed)
        for radius, values in zip(settings.all_radii, by_radius, strict=True)
    ]
    values, point = by_radius[-1], points[-1]
    result = Evaluation(
        protocol=settings.protocol,
        images=len(images),
        queries=len(plan.queries),
        steps=settings.steps,
        epsilon=settings.epsilon,
        step_size=settings.step_size,
        seed=plan.seed,
        benign=clean.benign,
        attacked=point.attacked,
        resistance=point.resistance,
        ERS=point.ERS,
        ARS=point.ARS,
        seconds=time.perf_counter() - started,
        intervals=_benign_intervals(clean.per_image, settings.bootstrap, plan.seed) | point.intervals,
        per_query=_per_query(plan, values),
        per_image=clean.per_image,
        norm=settings.norm,
        resistance_definition=resistance,
        curve=tuple(points) if len(points) > 1 else (),
        convergence=_convergence(values, settings.steps) if settings.protocol == "strong" else None,
    )
    return replace(result, measurements=(fairness_measurement(result.class_scores()),))


def evaluate(
    model: nn.Module,
    images: ImageSet,
    settings: EvaluationSettings,
    *,
    image_size: int,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    partial_results: Path | None = None,
    resume: bool = False,
    executor: Executor[Any, Any] | None = None,
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
        progress: called at every step.
        partial_results: folder for the chunks that are finished, so that they survive an interruption; None for none.
        resume: whether to take over what that folder holds of this very evaluation.
        executor: does the chunks somewhere else (`colotride.distributed.ray_cluster`); None does them here.

    Raises:
        ModelError: unusable embeddings.
        DataError: a class with a single image, a gallery too small to rank, or an image that cannot be read.
    """
    clean = evaluate_clean(model, images, settings, image_size=image_size, seed=seed, device=device, progress=progress)
    return evaluate_attacks(
        clean, model, images, progress=progress, partial_results=partial_results, resume=resume, executor=executor
    )


class _Counter:
    """Turns attacked queries into the share of the evaluation that is behind it."""

    def __init__(self, total: int, report: Progress) -> None:
        self._total, self._report, self._done = total, report, 0

    def add(self, attack: str, count: int) -> None:
        self._done += count
        self._report(attack, 0.05 + 0.95 * self._done / self._total)


def _benign(gallery: Gallery, settings: EvaluationSettings, seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    values = retrieval_values(gallery, torch.arange(len(gallery)), settings.recall_at)
    starts = clusterings(gallery, settings.clusterings, derive_seed(seed, "evaluation", "k-means"))
    labels = gallery.labels.cpu()
    scores = {name: float(mean_of(one)) for name, one in values.items()}
    named = {f"{CLUSTER} {start}": assigned for start, assigned in enumerate(starts)}
    return {"label": labels, **named, **values}, scores | {"NMI": nmi(labels, starts)}


def _attacked(
    plan: EvaluationPlan,
    run: Callable[[EvaluationPlan, Sequence[Chunk]], Iterable[tuple[Chunk, Values]]],
    partial_results: Path | None,
    resume: bool,
    counter: _Counter,
    *,
    count_chunks: bool,
) -> list[Values]:
    """Do all chunks that are not stored already; count whole ones where nobody counts batches. By radius."""
    store = None if partial_results is None else ChunkStore(partial_results, plan.digest())
    if store is not None and not resume:
        store.clear()
    done: dict[Chunk, Values] = {}
    every = plan.chunks()
    for chunk in every:
        stored = store.load(chunk) if store is not None and resume else None
        if stored is not None:
            done[chunk] = stored
            counter.add(chunk.attack, chunk.stop - chunk.start)
    for chunk, values in run(plan, [chunk for chunk in every if chunk not in done]):
        done[chunk] = values
        if store is not None:
            store.save(chunk, values)
        if count_chunks:
            counter.add(chunk.attack, chunk.stop - chunk.start)
    radii = range(len(plan.settings.all_radii))
    found = [chunks.all_values([chunk for chunk in every if chunk.radius == radius], done) for radius in radii]
    return chunks.worst_so_far(plan, found) if plan.settings.protocol == "strong" else found


def _curve_point(epsilon: float, values: Values, settings: EvaluationSettings, seed: int) -> CurvePoint:
    resistance = resistance_of(settings.protocol)
    scores = scores_of(values.before, values.after, resistance)
    random = generator(seed, "evaluation", "bootstrap")
    intervals = (
        attack_intervals(values.before, values.after, resistance, settings.bootstrap, random)
        if settings.bootstrap
        else {}
    )
    return CurvePoint(
        epsilon=epsilon,
        attacked={name: scores[name] for name in values.after},
        resistance={name: scores[f"ARS {name}"] for name in RESISTANCE_COLUMNS},
        ERS=scores["ERS"],
        ARS=scores["ARS"],
        intervals=intervals,
        strict=scores_of(values.before, values.strict, resistance) if values.strict else {},
    )


def _benign_intervals(per_image: dict[str, Tensor], samples: int, seed: int) -> dict[str, Interval]:
    if samples == 0:
        return {}
    starts = torch.stack([one for name, one in per_image.items() if name.startswith(CLUSTER)])
    means = {name: one for name, one in per_image.items() if name != "label" and not name.startswith(CLUSTER)}
    random = generator(seed, "evaluation", "bootstrap", "benign")
    return {**benign_intervals(means, samples, random), "NMI": nmi_interval(per_image["label"], starts)}


def _convergence(values: Values, steps: int) -> Convergence:
    """Scores against passes: every query's values as if its attacks had stopped earlier.

    Attacks with one loss and with several note what they have reached after the same passes.
    """
    passes = trace_steps(steps)
    resistance = resistance_of("strong")
    tables = [
        scores_of(values.before, {name: trace[:, place] for name, trace in values.trace.items()}, resistance)
        for place in range(len(passes))
    ]
    return Convergence(
        passes,
        {name: [table[name] for table in tables] for name in tables[0]},
        steps,
        scores_of(values.before, values.strict, resistance),
    )


def _per_query(plan: EvaluationPlan, values: Values) -> dict[str, dict[str, Tensor]]:
    owners, found = number_owners(plan.targets, plan.settings.protocol), {}
    for name, after in values.after.items():
        found[name] = {
            "query": plan.queries,
            "target": plan.targets[owners[name][0]],
            "before": values.before[name],
            "after": after,
        }
    return found
