"""Measurements beside the ten attacks, each asked for by name; `docs/explanation/strength.md` says how to read them."""

from collections.abc import Callable, Iterator

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
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.evaluation.universal import universal_measurement
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
) -> tuple[Measurement, ...]:
    """Make the measurements that are asked for, on the queries of an evaluation and within its largest radius.

    Args:
        model: on the gallery's device; maps pixels in [0, 1] to unit vectors.
        images: the gallery's images.
        plan: of the evaluation.
        settings: what to measure.
        surrogate: of the transfer attack, on the same device.
        progress: called with what is being done.

    Raises:
        ConfigurationError: see `check_strength`.
        ModelError: unusable embeddings, or a surrogate that cannot embed these images.
    """
    gallery, queries = plan.gallery, plan.queries
    check_strength(settings, len(queries), len(gallery), surrogate=surrogate is not None)
    budget, report = plan.settings.budget(plan.settings.epsilon), progress or (lambda what: None)
    found = []
    if settings.black_box:
        other = None if surrogate is None else (surrogate, surrogate_gallery(surrogate, images, plan))
        batches = query_batches(model, images, plan, queries)
        found.append(
            black_box_measurement(settings.black_box, model, batches, budget, settings.calls, plan.seed, other, report)
        )
    if settings.universal:
        report("universal perturbation")
        order = queries[
            torch.randperm(len(queries), generator=generator(plan.seed, "evaluation", "universal", "halves"))
        ]
        trained, judged = (query_batches(model, images, plan, half) for half in order.tensor_split(2))
        found.append(universal_measurement(model, trained, judged, budget, plan.seed))
    if settings.poison:
        report("poisoning")
        device = gallery.embeddings.device

        def views(places: Tensor) -> Tensor:
            return read_views(images, places, plan.image_size, model, device)

        found.append(poisoning_measurement(model, gallery, queries, views, budget, settings.poison, plan.seed))
    if settings.certify:
        found.append(
            certified_measurement(
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
        )
    return tuple(found)


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
