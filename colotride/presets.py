"""The run of each data set: the paper's and RobRank's values, and ours where neither has any."""

from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from colotride.config import RunConfig, load_config
from colotride.data.settings import DataSettings
from colotride.defenses import CollapsenessSettings
from colotride.errors import ConfigurationError
from colotride.evaluation.settings import EvaluationSettings
from colotride.models import TWO_CONVOLUTIONS, ModelSettings
from colotride.pgd_settings import PGDSettings
from colotride.registry import DATASETS, DEFENSES
from colotride.training.optimizer import TrainingSettings


def preset(name: str) -> RunConfig:
    """The configuration with which COLO-TRIDE is trained on a data set.

    Args:
        name: `digits`, `fashion-mnist`, `cub`, `cars`, `sop`; `folder` and `manifest`: your own images with the
            paper's settings for photographs; or a data set that a plugin registered, with the same settings and what
            it recommends.

    Raises:
        ConfigurationError: no such data set.
    """
    makers: dict[str, Callable[[], RunConfig]] = {
        "digits": _digits,
        "fashion-mnist": _fashion_mnist,
        "cub": _cub,
        "cars": _cars,
        "sop": _sop,
        "folder": partial(_photographs, "folder", attention_factor=10.0),
        "manifest": partial(_photographs, "manifest", attention_factor=10.0),
    }
    if name in makers:
        return makers[name]()
    recommended = DATASETS[name].recommended
    return _photographs(name, attention_factor=10.0).with_values(recommended)


def _digits() -> RunConfig:
    # 8-pixel images: the radius is chosen so that an undefended net breaks and a defended one need not.
    return RunConfig(
        data=DataSettings(
            name="digits", stored_size=8, image_size=8, flip=False, validation_fraction=1 / 3, pairs_per_batch=32
        ),
        model=ModelSettings(architecture=TWO_CONVOLUTIONS, embedding_dim=64, weights="none", freeze_batchnorm=False),
        pgd=PGDSettings(epsilon=32 / 255, step_size=4 / 255, steps=8),
        training=TrainingSettings(epochs=10, learning_rate=1e-3, weight_decay=1e-7),
        evaluation=EvaluationSettings(epsilon=32 / 255, step_size=4 / 255, batch_size=256),
    )


def _fashion_mnist() -> RunConfig:
    # RobRank's profile for 28-pixel images.
    return RunConfig(
        data=DataSettings(
            name="fashion-mnist",
            stored_size=28,
            image_size=28,
            flip=False,
            validation_fraction=0.1,
            pairs_per_batch=128,
        ),
        model=ModelSettings(architecture=TWO_CONVOLUTIONS, weights="none", freeze_batchnorm=False),
        pgd=PGDSettings(epsilon=77 / 255, step_size=3 / 255),
        training=TrainingSettings(epochs=8, learning_rate=1e-3, weight_decay=1e-7),
        evaluation=EvaluationSettings(epsilon=77 / 255, step_size=3 / 255),
    )


def _photographs(name: str, attention_factor: float) -> RunConfig:
    return RunConfig(
        data=DataSettings(name=name, stored_size=256, image_size=224, flip=True, validation_fraction=0.2),
        collapseness=CollapsenessSettings(attention_factor=attention_factor),
    )


def _cub() -> RunConfig:
    return _photographs("cub", attention_factor=10.0)


def _cars() -> RunConfig:
    return _photographs("cars", attention_factor=9.5)


def _sop() -> RunConfig:
    return _photographs("sop", attention_factor=2.0)


def configuration_of(start: str | PathLike[str] | RunConfig) -> RunConfig:
    """The configuration that somebody named: as it is, in a file, or a data set's preset.

    Args:
        start: a `RunConfig`, the path of a configuration (.yaml or .yml), or the name of a data set.

    Raises:
        ConfigurationError: no such data set, or an unusable file.
    """
    if isinstance(start, RunConfig):
        return start
    path = Path(start)
    return load_config(path) if path.suffix in (".yaml", ".yml") else preset(str(start))


def with_presets(
    config: RunConfig,
    *,
    recipe: str | None = None,
    defense: str | None = None,
    data_root: str | Path | None = None,
    reading: str | None = None,
    quick: bool = False,
) -> RunConfig:
    """The same run with what a user chose, each over the one before: None changes nothing.

    Args:
        config: the run.
        recipe: see `with_recipe`.
        defense: see `with_defense`; the one that the run has already keeps its settings.
        data_root: see `with_data_root`.
        reading: see `with_reading`.
        quick: see `with_quick_budget`.

    Raises:
        ConfigurationError: an unknown name, or a reading of another defense.
    """
    if recipe is not None:
        config = with_recipe(config, recipe)
    if defense is not None and defense != config.defense.name:
        config = with_defense(config, defense)
    config = with_data_root(config, data_root)
    if reading is not None:
        config = with_reading(config, reading)
    return with_quick_budget(config) if quick else config


def with_data_root(config: RunConfig, root: str | Path | None) -> RunConfig:
    """The same run with its data elsewhere; None changes nothing."""
    return config if root is None else config.with_values({"data.root": root})


def with_defense(config: RunConfig, name: str) -> RunConfig:
    """The same run with another defense, its defaults, and the settings with which its authors use it.

    Raises:
        ConfigurationError: no such defense.
    """
    return config.with_values({"defense": {"name": name}, **DEFENSES[name].Settings.recommended})


def with_quick_budget(config: RunConfig) -> RunConfig:
    """The same run scaled down to minutes on a CPU, for a first look; its scores mean nothing.

    At most three epochs of twenty batches of sixteen pairs, eight PGD steps at full strength from the first epoch on,
    photographs at 64 pixels, and an evaluation that attacks 32 images with eight steps.
    """
    data, training, evaluation = config.data, config.training, config.evaluation
    pairs = min(16, data.pairs_per_batch)
    few = {
        "data.pairs_per_batch": pairs,
        "data.pairs_per_epoch": min(20 * pairs, data.pairs_per_epoch or 20 * pairs),
        "training.epochs": min(3, training.epochs),
        "pgd.steps": min(8, config.pgd.steps),
        "pgd.ramp": "constant",
        "evaluation.queries": min(32, evaluation.queries or 32),
        "evaluation.steps": min(8, evaluation.steps),
        "evaluation.bootstrap": min(100, evaluation.bootstrap),
        "validation.queries": min(16, config.validation.queries or 16),
        "validation.steps": min(4, config.validation.steps),
    }
    small = {"data.stored_size": 72, "data.image_size": 64} if data.image_size > 64 else {}
    return config.with_values(few | small)


READINGS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "collapseness.weighting": "near",
        "collapseness.weight_gradient": "detached",
        "pgd.ramp_from_zero": False,
        "defense.anchor_hardness_term": "raise",
        "defense.candidate_assist": True,
        "defense.top_ranked_batches": "anchor",
    },
    "released": {
        "collapseness.weighting": "far",
        "collapseness.weight_gradient": "through",
        "pgd.ramp_from_zero": True,
        "defense.anchor_hardness_term": "released",
        "defense.candidate_assist": False,
        "defense.top_ranked_batches": "all",
    },
}
"""COLO-TRIDE as the paper describes it and as its authors' released code trains, where the two differ."""


def with_reading(config: RunConfig, reading: str) -> RunConfig:
    """The same run of COLO-TRIDE by one of its two readings, "paper" or "released".

    Each of the settings can still be changed by itself.

    Raises:
        ConfigurationError: no such reading, or the run has another defense.
    """
    if reading not in READINGS:
        raise ConfigurationError(f"no reading {reading!r}; there are {', '.join(READINGS)}")
    if config.defense.name != "colo-tride":
        raise ConfigurationError(
            f"readings belong to colo-tride, but the run's defense is {config.defense.name}; leave --reading out, or "
            "choose --defense colo-tride"
        )
    return config.with_values(READINGS[reading])


RECIPES: Mapping[str, Mapping[str, Any]] = {
    "real-photos": {
        "data.stored_size": 72,
        "data.image_size": 64,
        "data.flip": True,
        "data.pairs_per_batch": 28,
        "model.architecture": "timm:tf_efficientnet_lite0",
        "model.weights": "pretrained",
        "model.freeze_batchnorm": True,
        "pgd.epsilon": 8 / 255,
        "pgd.step_size": 1 / 255,
        "pgd.steps": 16,
        "training.epochs": 10,
        "training.learning_rate": 1e-4,
        "evaluation.queries": 128,
    },
}
"""Settings beside those of a data set, for a task and a machine: `real-photos` fine-tunes a small ImageNet network on
photographs of 64 pixels, in half an hour on a core."""


def with_recipe(config: RunConfig, recipe: str) -> RunConfig:
    """The same run with the settings of a recipe; each of them can still be changed by itself.

    Raises:
        ConfigurationError: no such recipe, or the package of its network is not installed.
    """
    if recipe not in RECIPES:
        raise ConfigurationError(f"no recipe {recipe!r}; there are {', '.join(RECIPES)}")
    return config.with_values(RECIPES[recipe])
