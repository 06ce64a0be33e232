"""The run of each data set: the paper's and RobRank's values, and ours where neither has any."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from colotride.config import RunConfig
from colotride.data.settings import DataSettings
from colotride.defenses import CollapsenessSettings
from colotride.evaluation.settings import EvaluationSettings
from colotride.models import TWO_CONVOLUTIONS, ModelSettings
from colotride.pgd import PGDSettings
from colotride.registry import DATASETS, DEFENSES
from colotride.training.optimizer import TrainingSettings


def preset(name: str) -> RunConfig:
    """The configuration with which COLO-TRIDE is trained on a data set.

    Args:
        name: `digits`, `fashion-mnist`, `cub`, `cars`, `sop`; `folder` and `manifest`: one's own images with the
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


def quick(config: RunConfig) -> RunConfig:
    """The same run at a budget of minutes on a laptop, for a first look at any data set; its scores say little."""
    epochs = min(config.training.epochs, 2)
    pairs = min(config.data.pairs_per_batch, 32)
    return config.with_values(
        {
            "training.epochs": epochs,
            "data.pairs_per_batch": pairs,
            "data.pairs_per_epoch": min(config.data.pairs_per_epoch or 8 * pairs, 8 * pairs),
            "pgd.steps": min(config.pgd.steps, 4),
            "evaluation.queries": min(config.evaluation.queries or 64, 64),
            "evaluation.steps": min(config.evaluation.steps, 4),
            "validation.queries": min(config.validation.queries or 32, 32),
            "validation.steps": min(config.validation.steps, 4),
        }
    )


def with_data_root(config: RunConfig, root: str | Path | None) -> RunConfig:
    """The same run with its data elsewhere; None changes nothing."""
    return config if root is None else config.with_values({"data.root": root})


def with_defense(config: RunConfig, name: str) -> RunConfig:
    """The same run with another defense, its defaults, and the settings with which its authors use it.

    Raises:
        ConfigurationError: no such defense.
    """
    return config.with_values({"defense": {"name": name}, **DEFENSES[name].Settings.recommended})
