"""Measurements beside the ten attacks, each asked for by name; `docs/explanation/strength.md` says how to read them."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.errors import ColoTrideError, ConfigurationError, ModelError
from colotride.evaluation import targets
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.black_box import black_box_measurement
from colotride.evaluation.certified import certified_measurement
from colotride.evaluation.chunks import EvaluationPlan
from colotride.evaluation.gallery import Gallery, embed_gallery, in_batches, read_views
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.poisoning import poisoning_measurement
from colotride.evaluation.strength_settings import BlackBoxAttack, StrengthSettings
from colotride.evaluation.universal import universal_measurement
from colotride.io import write_atomically
from colotride.pgd import frozen
from colotride.randomness import generator


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
) -> tuple[Measurement, ...]:
    """Make the measurements that are asked for, on the queries of an evaluation and within its largest radius.

    Args:
        model: on the gallery's device; maps pixels in [0, 1] to unit vectors.
        images: the gallery's images.
        plan: of the evaluation.
        settings: what to measure.
        surrogate: of the transfer attack, on the same device.
        progress: called with what is being done.
        partial_results: folder for the measurements that are finished, so that they survive an interruption; None for
            none.
        resume: whether to take the ones that lie there already.

    Raises:
        ConfigurationError: see `check_strength`.
        ModelError: unusable embeddings, or a surrogate that cannot embed these images.
    """
    gallery, queries = plan.gallery, plan.queries
    check_strength(settings, len(queries), len(gallery), surrogate=surrogate is not None)
    budget, report = plan.settings.budget(plan.settings.epsilon), progress or (lambda what: None)
    other = None
    if "transfer" in settings.black_box and surrogate is not None:
        other = (surrogate, surrogate_gallery(surrogate, images, plan))
    store = MeasurementStore(partial_results, _digest(plan, settings, other), resume=resume)

    def black_box(name: BlackBoxAttack) -> Measurement:
        batches = query_batches(model, images, plan, queries)
        return black_box_measurement([name], model, batches, budget, settings.calls, plan.seed, other, report)

    def universal() -> Measurement:
        report("universal perturbation")
        order = queries[
            torch.randperm(len(queries), generator=generator(plan.seed, "evaluation", "universal", "halves"))
        ]
        trained, judged = (query_batches(model, images, plan, half) for half in order.tensor_split(2))
        return universal_measurement(model, trained, judged, budget, plan.seed)

    def poisoning(inserted: int) -> Measurement:
        report("poisoning")
        device = gallery.embeddings.device

        def views(places: Tensor) -> Tensor:
            return read_views(images, places, plan.image_size, model, device)

        return poisoning_measurement(model, gallery, queries, views, budget, inserted, plan.seed)

    def certified() -> Measurement:
        return certified_measurement(
            model,
            query_batches(model, images, plan, queries),
            sigmas=settings.certify,
            radii=settings.certify_radii,
            samples=settings.certify_samples,
            selection=settings.certify_selection,
            alpha=settings.certify_alpha,
            seed=plan.seed,
            batch_size=plan.settings.batch_size,
            progress=report,
        )

    found = []
    if settings.black_box:
        found.append(_joined([store.get(f"black box {name}", partial(black_box, name)) for name in settings.black_box]))
    if settings.universal:
        found.append(store.get("universal", universal))
    if settings.poison:
        found.append(store.get("poisoning", partial(poisoning, settings.poison)))
    if settings.certify:
        found.append(store.get("certified", certified))
    return tuple(found)


class MeasurementStore:
    """Finished measurements in a folder, so that an evaluation that was interrupted need not make them again."""

    def __init__(self, folder: Path | None, digest: str, *, resume: bool) -> None:
        """Open the store of one evaluation; measurements of another model, seed or setting are never mixed in.

        Args:
            folder: of all partial results, made when the first is saved; None keeps nothing.
            digest: of everything that decides the figures.
            resume: whether what lies there is taken.
        """
        self._folder, self._resume = None if folder is None else folder / digest[:16], resume

    def get(self, name: str, make: Callable[[], Measurement]) -> Measurement:
        """What was kept of a measurement, or else what `make` finds, which is kept then."""
        if self._folder is None:
            return make()
        path = self._folder / f"{name}.json"
        if self._resume:
            with contextlib.suppress(OSError, ValueError, TypeError):
                return Measurement.from_dict(json.loads(path.read_text()))
        found = make()
        write_atomically(path, json.dumps(asdict(found)).encode())
        return found


def _joined(rows: list[Measurement]) -> Measurement:
    """The tables of single attacks as one."""
    return replace(
        rows[0],
        rows={name: figures for one in rows for name, figures in one.rows.items()},
        calls=sum(one.calls for one in rows),
        seconds=sum(one.seconds for one in rows),
    )


def _digest(plan: EvaluationPlan, settings: StrengthSettings, surrogate: tuple[nn.Module, Gallery] | None) -> str:
    summary = hashlib.sha256(f"{plan.digest()} {settings.model_dump_json()}".encode())
    if surrogate is not None:
        summary.update(surrogate[1].embeddings.cpu().contiguous().numpy().tobytes())
    return summary.hexdigest()


def query_batches(
    model: nn.Module, images: ImageSet, plan: EvaluationPlan, queries: Tensor
) -> Callable[[], Iterator[tuple[Tensor, AttackBatch]]]:
    """Batches of queries with their clean first results as targets, read anew at each call."""
    gallery, device = plan.gallery, plan.gallery.embeddings.device
    first = targets.nearest_others(gallery, queries.to(device), generator(plan.seed)).to(device)

    def batches() -> Iterator[tuple[Tensor, AttackBatch]]:
        size = plan.settings.batch_size
        for moving, target in zip(in_batches(queries, size), in_batches(first, size), strict=True):
            view = read_views(images, moving, plan.image_size, model, device)
            yield view, AttackBatch(gallery, moving.to(device), target)

    return batches


def surrogate_gallery(surrogate: nn.Module, images: ImageSet, plan: EvaluationPlan) -> Gallery:
    """The gallery as a surrogate embeds it.

    Raises:
        ModelError: it takes images of another size or form.
    """
    check_surrogate(surrogate, images, plan)
    return embed_gallery(
        surrogate,
        images,
        image_size=plan.image_size,
        batch_size=plan.settings.batch_size,
        device=plan.gallery.embeddings.device,
    )


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
