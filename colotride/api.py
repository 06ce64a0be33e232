"""The library's front door: train, evaluate, perturb, load and search in one call each."""

import copy
import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from colotride.backbones import PRETRAINED, record_size
from colotride.config import RunConfig
from colotride.data.base import ImageSet
from colotride.data.images import as_image_set
from colotride.data.splits import load_splits, load_test
from colotride.devices import device_of
from colotride.embedder import Embedder
from colotride.errors import CheckpointError, ConfigurationError, ModelError
from colotride.evaluation.evaluator import evaluate_attacks, evaluate_clean
from colotride.evaluation.probe import probe
from colotride.evaluation.results import Evaluation
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.strength import check_strength, check_surrogate, measure_strength
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.external_models import is_name, load_external_model
from colotride.hub.address import local_copy
from colotride.index import Index
from colotride.locking import owned
from colotride.models import EmbeddingModel, UnitEmbeddings
from colotride.pgd import perturb
from colotride.pgd_settings import Budget
from colotride.presets import configuration_of, with_presets
from colotride.training.interpolation import interpolate as blend
from colotride.training.records import EpochRecord, Outcome
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.runs import load_run
from colotride.training.trainer import Trainer

T = TypeVar("T")

__all__ = ["Budget", "Index", "Run", "evaluate", "interpolate", "load", "perturb", "search", "train"]


@dataclass(frozen=True)
class Run:
    """A training run that has ended."""

    directory: Path
    """Its configuration, checkpoints, history and summary."""
    config: RunConfig
    outcome: Outcome
    """How it ended: `status` is "finished", or says how the model failed; `history` has a record per epoch."""
    model: EmbeddingModel
    """As it was after the last epoch, in evaluation mode."""
    module: nn.Module | None = None
    """The module from which it was trained, as it was before, where one was given."""


def train(
    start: str | PathLike[str] | RunConfig,
    *,
    model: nn.Module | None = None,
    recipe: str | None = None,
    defense: str | None = None,
    directory: str | PathLike[str] | None = None,
    epochs: int | None = None,
    reading: str | None = None,
    quick: bool = False,
    overrides: Mapping[str, Any] | None = None,
    data_root: str | PathLike[str] | None = None,
    device: str = "auto",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Run:
    """Train a model in this process; a run that is in the directory already is continued where it stopped.

    Args:
        start: name of a data set (its preset: "digits", "cub", ...), path of a configuration in YAML, or a `RunConfig`.
        model: a network to train instead of the configuration's: from pixels in [0, 1], [B, C, H, W], to embeddings
            [B, D]. A copy is trained, from the weights that it has, and the run's configuration names its class. It
            keeps its own embedding unless `overrides` give `model.embedding_dim`.
        recipe: settings for a task: "real-photos" fine-tunes a small ImageNet network (see `colotride.presets.RECIPES`).
        defense: another defense than the configuration's, as its authors use it ("natural", "act", ...).
        directory: where the run is kept; None makes `runs/DATASET-DEFENSE-DATE`.
        epochs: another length of the run.
        reading: COLO-TRIDE as the "paper" describes it (the default) or as the "released" code trains.
        quick: scale the run down to minutes, for a first look; see `colotride.presets.with_quick_budget`.
        overrides: other values by dotted path, such as {"pgd.steps": 8}.
        data_root: folder that holds the data sets.
        device: "auto" (a GPU where there is one), "cpu", "cuda:1", "mps", ...
        on_epoch: called with the record of every completed epoch.

    Raises:
        ConfigurationError: an unknown name or setting, or a value out of range.
        CheckpointError: the directory belongs to a run of another configuration.
        StorageError: another process trains in the directory, or it cannot be written.
        DataError, ModelError: the data set or the model cannot be loaded.
    """
    config = with_presets(
        configuration_of(start),
        recipe=recipe,
        defense=defense,
        data_root=None if data_root is None else str(data_root),
        reading=reading,
        quick=quick,
    )
    if model is not None:
        # A class without arguments is found again by this name; any other has to be given to `load` too.
        name = f"{type(model).__module__}:{type(model).__name__}"
        config = config.with_values(
            {"model.architecture": name, "model.weights": PRETRAINED, "model.embedding_dim": None}
        )
    changes = {**({} if epochs is None else {"training.epochs": epochs}), **(overrides or {})}
    config = config.with_values(changes)
    folder = Path(directory) if directory is not None else default_directory(config)
    splits = load_splits(config.data)
    with owned(folder, "run"):
        trainer = Trainer(
            config,
            splits.train,
            splits.validation,
            device=device_of(device),
            directory=folder,
            checkpoint_policy=CheckpointPolicy(),
            backbone=copy.deepcopy(model),
        )
        outcome = trainer.run(on_epoch=on_epoch)
    return Run(folder, config, outcome, trainer.model.eval(), copy.deepcopy(model))


def default_directory(config: RunConfig) -> Path:
    """Where a run is kept whose directory nobody named."""
    return Path("runs") / time.strftime(f"{config.data.name}-{config.defense.name}-%Y%m%d-%H%M%S")


def evaluate(
    model: Run | str | PathLike[str] | nn.Module,
    images: Any = None,
    labels: Any = None,
    *,
    queries: int | None = None,
    epsilon: float | str | Sequence[float | str] | None = None,
    steps: int | None = None,
    protocol: str | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[str, float], None] | None = None,
    black_box: str | Sequence[str] = (),
    certify: float | str | Sequence[float | str] = (),
    universal: bool = False,
    poison: int | None = None,
    surrogate: Run | str | PathLike[str] | nn.Module | None = None,
    **settings: Any,
) -> Evaluation:
    """Attack a model with all ten attacks, and score it.

    Args:
        model: a `Run`, the directory of one, `hf://user/name` where one was published, or any module that maps pixels in
            [0, 1] to embeddings, which are normalised to length 1 here where the model does not.
        images: of a module: a tensor or array of images, 8-bit or floating-point in [0, 1] (kept as 8 bits), or a
            torch data set of (image, label). A run is evaluated on its own test images where this is None.
        labels: class of each image; None where `images` is a data set that has them.
        queries: how many images are attacked, drawn at random; None attacks every image (of a run: as configured).
        epsilon: radius of the perturbation in pixel units, such as 8/255; a list of radii draws robustness curves
            (`Evaluation.curve`), and the scores are those of the largest. Without a `step_size` the steps change in
            proportion.
        steps: steps of each attack.
        protocol: "strict" attacks as they are defined, "published" as the code behind the papers' tables has them,
            "strong" reports the worst case over an ensemble of parameter-free attacks at twice the cost.
        seed: of the queries, the targets and the intervals.
        device: "auto", "cpu", "cuda:1", ...
        on_progress: called with what is being done and the share that is done.
        black_box: attacks without gradients to run as well: "square", "nes", "qair", or "transfer" from `surrogate`;
            what they and the next three find is in `Evaluation.measurements`.
        certify: standard deviations of the noise, in pixel units, for which to certify R@1 by randomised smoothing.
        universal: whether to train one perturbation for all images.
        poison: how many perturbed images to insert into the gallery; None for none.
        surrogate: another model of the same images, given as `model` is.
        settings: any other field of `EvaluationSettings`, such as `norm`, `step_size`, `batch_size` or `bootstrap`, or of
            `StrengthSettings`, such as `calls` or `certify_radii`.

    Raises:
        ConfigurationError: an unknown setting, a value out of range, or more queries than images.
        DataError: a class with a single image, pixels outside [0, 1], or labels that do not fit.
        ModelError: embeddings that cannot be used.
        CheckpointError: the directory holds no run.
    """
    measured = {name: settings.pop(name) for name in StrengthSettings.model_fields if name in settings}
    measured |= {"black_box": black_box, "certify": certify, "universal": universal, "poison": poison}
    strength = _checked(StrengthSettings.model_validate, measured)
    asked = {"queries": queries, "epsilon": epsilon, "steps": steps, "protocol": protocol, **settings}
    asked = {name: value for name, value in asked.items() if value is not None}
    if isinstance(model, nn.Module):
        if images is None:
            raise ConfigurationError("a module alone cannot be evaluated; give images and labels too")
        network = _network_of(model)
        base = EvaluationSettings()
    else:
        config, network = _run_of(model)
        base = config.evaluation
    if images is not None:
        gallery, size = as_image_set(images, labels), None
    else:
        gallery, size = load_test(config.data), config.data.image_size
    evaluation_settings = _checked(base.with_values, asked)
    wanted = evaluation_settings.queries
    # A run's own number is an upper bound, as on the command line; one that was asked for is meant.
    if "queries" in asked and wanted is not None and wanted > len(gallery):
        raise ConfigurationError(f"queries = {wanted} is more than the {len(gallery)} images of {gallery.name}")
    where = _device_of_module(network) if device == "auto" and isinstance(model, nn.Module) else device_of(device)
    network = network.to(where)
    image_size = size or _side(gallery)
    if isinstance(model, nn.Module):
        probe(network, gallery, image_size=image_size, device=where)
    clean = evaluate_clean(
        network,
        gallery,
        evaluation_settings,
        image_size=image_size,
        seed=seed,
        device=where,
        progress=on_progress,
    )
    other = None if surrogate is None else _network_of(surrogate).to(where)
    check_strength(strength, len(clean.plan.queries), len(gallery), surrogate=other is not None)
    if other is not None:
        check_surrogate(other, gallery, clean.plan)
    result = evaluate_attacks(clean, network, gallery, progress=on_progress)
    report = None if on_progress is None else lambda what: on_progress(what, 1.0)
    found = measure_strength(network, gallery, clean.plan, strength, other, report)
    return replace(result, measurements=result.measurements + found)


def load(
    path: str | PathLike[str],
    *,
    model: nn.Module | None = None,
    image_size: int | None = None,
    stored_size: int | None = None,
    channels: int = 3,
    device: str = "auto",
    trust: bool = False,
) -> Embedder:
    """Load a trained model with its preprocessing, ready to embed pictures.

    Args:
        path: directory of a run, or `hf://user/name` where one was published; a network by name with its own weights
            (`timm:NAME`, `open_clip:NAME`, "resnet18"); or a TorchScript file, an exported program (.pt2) or `package.module:function`, whose preprocessing is given
            here.
        model: of a run that was trained from a module object, a module of the same layers; a copy takes the run's
            weights.
        image_size: side in pixels that the network sees; runs and networks by name know theirs, others default to 224.
        stored_size: side to which pictures are resized before the central crop; a run knows its own, others default
            to 8/7 of `image_size`, as 256 for 224.
        channels: of an external model's images; a run knows its own.
        device: "auto", "cpu", "cuda:1", ...
        trust: whether an exported program may run code while it is loaded, because you trust whoever made it.

    Raises:
        CheckpointError: the directory holds no run.
        ModelError: the model cannot be loaded, or would run code without being trusted.
    """
    where = device_of(device)
    if str(path).startswith(("models:/", "runs:/")) or (Path(path) / "MLmodel").is_file():
        raise ModelError(
            f"model {path} is one of MLflow's, which do not tell how their pictures are prepared; give a run's directory"
        )
    path = local_copy(path)
    if not path.is_dir():
        size = image_size or (record_size(str(path)) if is_name(str(path)) else 224)
        network = load_external_model(str(path), image_size=size, trust=trust)
        stored = stored_size or round(size * 8 / 7)
        return Embedder(network, image_size=size, stored_size=stored, channels=channels, device=where)
    config, network = load_run(path, copy.deepcopy(model))
    return Embedder(
        network,
        image_size=image_size or config.data.image_size,
        stored_size=stored_size or config.data.stored_size,
        channels=network.channels,
        device=where,
    )


def interpolate(
    first: Run | str | PathLike[str],
    second: Run | str | PathLike[str],
    *,
    share: float,
    directory: str | PathLike[str],
) -> Path:
    """Make a model between two that were trained from the same start, such as a natural and a robust one.

    Its weights are (1 - share) of the first's and `share` of the second's; see `docs/how-to/interpolate.md`.

    Args:
        first: a run, or its directory; not one that was trained from a module object, whose start nobody knows.
        second: another; its configuration, with the preprocessing, goes with the new model.
        share: of the second, in [0, 1].
        directory: a new folder, which is a run to `evaluate`, `load` and every command that takes a trained one.

    Returns:
        The folder.

    Raises:
        ConfigurationError: a share outside [0, 1], or a folder that is there already.
        CheckpointError: no run, or two between which there is no model: another network, image size or start.
        StorageError: the disk is full or not writable.
    """
    for run in (first, second):
        if isinstance(run, Run) and run.module is not None:
            raise CheckpointError(
                f"{run.directory} was trained from a module object, whose start is not known; train by a name of the network"
            )
    one, other = (run.directory if isinstance(run, Run) else Path(run) for run in (first, second))
    return blend(one, other, share, Path(directory))


def search(*arguments: Any, **options: Any) -> Any:
    """Search hyper-parameters; see `colotride.tune.api.search` for its arguments.

    Raises:
        ConfigurationError: Ray or Optuna is not installed.
    """
    return _of_extra("a search", "colotride.tune.api").search(*arguments, **options)


def tournament(*arguments: Any, **options: Any) -> Any:
    """Compare defenses at the same cost, each at its best; see `colotride.tournaments.run.tournament` for its arguments.

    Raises:
        ConfigurationError: Ray or Optuna is not installed.
    """
    return _of_extra("a tournament", "colotride.tournaments.run").tournament(*arguments, **options)


def _of_extra(what: str, module: str) -> Any:
    missing = [name for name in ("ray", "optuna") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"{what} needs {' and '.join(missing)}, which is not installed: pip install 'colotride[tune]'"
        )
    return importlib.import_module(module)


def _run_of(run: Run | str | PathLike[str]) -> tuple[RunConfig, nn.Module]:
    # A run in memory is read again too: what was trained in bfloat16 is evaluated in float32.
    if isinstance(run, Run):
        return load_run(run.directory, copy.deepcopy(run.module))
    return load_run(local_copy(run))


def _network_of(model: Run | str | PathLike[str] | nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        return _run_of(model)[1]
    return model if isinstance(model, EmbeddingModel) else UnitEmbeddings(model)


def _checked(make: Callable[[Mapping[str, Any]], T], asked: Mapping[str, Any]) -> T:
    """Settings made of what is asked for.

    Raises:
        ConfigurationError: an unknown setting, or a value out of range.
    """
    try:
        return make(asked)
    except ValidationError as error:
        lines = (
            f"{one['loc'][0]} = {one['input']!r}: {one['msg']}"
            if one["loc"]
            else one["msg"].removeprefix("Value error, ")
            for one in error.errors(include_url=False)
        )
        raise ConfigurationError("; ".join(lines)) from None


def _device_of_module(module: nn.Module) -> torch.device:
    """Where a module is; one without weights is taken to be wherever there is a GPU."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else device_of("auto")


def _side(images: ImageSet) -> int:
    return images.pixels(torch.zeros(1, dtype=torch.int64)).shape[-1]
