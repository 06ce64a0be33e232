"""Measurements beside the ten attacks, each asked for by name; `docs/explanation/strength.md` says how to read them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from colotride.data.base import ImageSet
from colotride.errors import ColoTrideError, ConfigurationError, ModelError
from colotride.evaluation.chunks import EvaluationPlan, Executor, in_process
from colotride.evaluation.gallery import Gallery, read_views
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.strength_parts import (
    PartResult,
    PartStore,
    StrengthPart,
    StrengthWork,
    strength_parts,
    strength_tables,
    surrogate_gallery,
)
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.pgd import frozen


def check_strength(settings: StrengthSettings, queries: int, images: int, *, surrogate: bool) -> None:
    """Refuse what cannot be measured, before anything has run.

    Args:
        settings: what is asked for.
        queries: that are attacked.
        images: in the gallery.
        surrogate: whether one was given.

    Raises:
        ConfigurationError: a transfer attack without a surrogate, or too few queries or images.
    """
    if "transfer" in settings.black_box and not surrogate:
        raise ConfigurationError("black_box transfer needs another model's gradients; give one as surrogate")
    if settings.universal and queries < 2:
        raise ConfigurationError(f"universal needs 2 queries, to train on one and judge another; {queries} is too few")
    if settings.poison:
        left = queries - max(0, settings.poison - (images - queries))
        if left // 2 < settings.poison:
            raise ConfigurationError(
                f"poison {settings.poison} needs twice as many queries that are not copied, to train on half of them; "
                f"there are {max(0, left)} of {queries}; insert fewer images or attack more queries"
            )


def measure_strength(
    model: nn.Module,
    images: ImageSet,
    plan: EvaluationPlan,
    settings: StrengthSettings,
    surrogate: nn.Module | None = None,
    progress: Callable[[str], None] | None = None,
    partial_results: Path | None = None,
    *,
    resume: bool = False,
    executor: Executor[Any, Any] | None = None,
    load_surrogate: Callable[[], nn.Module] | None = None,
) -> tuple[Measurement, ...]:
    """Make the measurements that are asked for, on the queries of an evaluation and within its largest radius.

    Args:
        model: on the gallery's device; maps pixels in [0, 1] to unit vectors.
        images: the gallery's images.
        plan: of the evaluation.
        settings: what to measure.
        surrogate: of the transfer attack, on the same device.
        progress: called with what is being done.
        partial_results: folder for the parts that are finished, so that they survive an interruption; None for none.
        resume: whether to take the ones that lie there already.
        executor: does the parts somewhere else (`colotride.distributed.ray_cluster`); None does them here.
        load_surrogate: makes the surrogate on a worker; the surrogate itself is sent where this is None.

    Raises:
        ConfigurationError: see `check_strength`.
        ModelError: unusable embeddings, or a surrogate that cannot embed these images.
    """
    check_strength(settings, len(plan.queries), len(plan.gallery), surrogate=surrogate is not None)
    report, other = progress or (lambda what: None), None
    if "transfer" in settings.black_box and surrogate is not None:
        check_surrogate(surrogate, images, plan)
        other = (surrogate, surrogate_gallery(surrogate, images, plan))
    store = None if partial_results is None else PartStore(partial_results, _digest(plan, settings, other))
    parts = strength_parts(settings, plan)
    done: dict[StrengthPart, PartResult] = {}
    for part in parts:
        found = store.load(part) if store is not None and resume else None
        if found is not None:
            done[part] = found
    left = [part for part in parts if part not in done]
    if executor is None:
        here = StrengthWork(settings, other)

        def work(plan: EvaluationPlan, part: StrengthPart, model: nn.Module, images: ImageSet) -> PartResult:
            report(part.title(settings))
            return here(plan, part, model, images)

        running = in_process(model, images)(work, plan, left)
    else:
        running = executor(StrengthWork(settings, load_surrogate or other), plan, left)
    for part, found in running:
        done[part] = found
        if store is not None:
            store.save(part, found)
        if executor is not None:
            report(f"{part.title(settings)}, {len(done)} of {len(parts)} parts done")
    return strength_tables(settings, plan, done)


def _digest(plan: EvaluationPlan, settings: StrengthSettings, surrogate: tuple[nn.Module, Gallery] | None) -> str:
    summary = hashlib.sha256(f"{plan.digest()} {settings.model_dump_json()}".encode())
    if surrogate is not None:
        summary.update(surrogate[1].embeddings.cpu().contiguous().numpy().tobytes())
    return summary.hexdigest()


def check_surrogate(surrogate: nn.Module, images: ImageSet, plan: EvaluationPlan) -> None:
    """Show a surrogate one image.

    Raises:
        ModelError: it takes images of another size or form.
    """
    device = plan.gallery.embeddings.device
    view = read_views(images, plan.queries[:1], plan.image_size, surrogate, device)
    shape = " x ".join(map(str, view.shape[1:]))
    try:
        with frozen(surrogate) as embed, torch.no_grad():
            embed(view)
    except (RuntimeError, ValueError, TypeError, ColoTrideError) as error:
        raise ModelError(
            f"the surrogate cannot embed images of {shape} pixels, as the model sees them; "
            "give a model that was trained on images of this size, see --image-size"
        ) from error
