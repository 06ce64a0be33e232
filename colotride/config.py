"""The configuration of a run: one typed, validated object, written as YAML into the run's directory."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from colotride.data.settings import DataSettings
from colotride.defenses import AnyDefenseSettings, CollapsenessSettings
from colotride.defenses.colo_tride import ColoTrideSettings
from colotride.documents import read_yaml
from colotride.errors import ConfigurationError
from colotride.evaluation.settings import EvaluationSettings
from colotride.io import write_atomically
from colotride.models import ModelSettings
from colotride.pgd_settings import PGDSettings
from colotride.registry import DEFENSES, load_plugin
from colotride.settings import Fraction, Settings
from colotride.training.health import HealthSettings
from colotride.training.optimizer import TrainingSettings


class ValidationSettings(Settings):
    """The smaller evaluation of the held-out part during training."""

    every: int = Field(default=1, ge=1)
    """Epochs between two validations; the last epoch is always validated."""
    queries: int | None = Field(default=128, ge=1)
    """Query budget per attack; null for every image."""
    steps: int = Field(default=8, ge=1)
    """PGD steps per attack."""
    first_share: Fraction = Field(default=1.0, gt=0, le=1)
    """Share of the queries and of the steps in the first epoch; it grows evenly to all of them in the last one."""
    average_over: int = Field(default=3, ge=1)
    """Newest validations whose mean is the score of a search's trial. Weights move from epoch to epoch: a single validation
    says less about a configuration than about the epoch."""

    def at(self, epoch: int, epochs: int, images: int) -> tuple[int, int]:
        """Queries and PGD steps of one epoch; the same for every run with this number of epochs.

        Args:
            epoch: counted from 1.
            epochs: of the whole run.
            images: how many could be queries.
        """
        share = self.first_share + (1 - self.first_share) * (epoch - 1) / max(1, epochs - 1)
        queries = images if self.queries is None else min(self.queries, images)
        return max(1, round(share * queries)), max(1, round(share * self.steps))


class RunConfig(Settings):
    """Everything that decides a run's numbers, except the machine."""

    plugins: tuple[Annotated[str, AfterValidator(load_plugin)], ...] = ()
    """Your own modules that register defenses, miners, losses or data sets; imported before anything is checked."""
    data: DataSettings
    model: ModelSettings = ModelSettings()
    defense: AnyDefenseSettings = ColoTrideSettings()
    pgd: PGDSettings = PGDSettings()
    collapseness: CollapsenessSettings = CollapsenessSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    validation: ValidationSettings = ValidationSettings()
    health: HealthSettings = HealthSettings()
    seed: int = Field(default=0, ge=0, lt=2**32)
    """The one seed from which all randomness of the run flows."""

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Unpickle; a new process has to load the plugins first."""
        super().__setstate__(state)
        for module in self.plugins:
            load_plugin(module)

    def with_values(self, values: Mapping[str, Any]) -> "RunConfig":
        """A copy in which some fields, named by dotted path ("pgd.steps"), have other values, validated as a whole.

        Raises:
            ConfigurationError: a path that does not exist, or a value out of range.
        """
        tree = self.model_dump()
        for path, value in values.items():
            *parents, leaf = path.split(".")
            section: Any = tree
            for parent in parents:
                section = section.get(parent) if isinstance(section, dict) else None
            if not isinstance(section, dict):
                raise ConfigurationError(f"{path!r} is not a setting; see --help for their names")
            section[leaf] = value
        return validated(tree, "configuration")


def validated(tree: Any, origin: str) -> RunConfig:
    """Turn plain values into a `RunConfig`.

    Args:
        tree: nested dictionaries, as YAML gives them.
        origin: where they come from, for the message.

    Raises:
        ConfigurationError: with every unknown key and every value out of range in one line.
    """
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{origin} holds {type(tree).__name__}, not sections of settings such as 'data:'")
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError(f"{origin}: " + "; ".join(map(_line, error.errors(include_url=False)))) from None


def save_config(config: RunConfig, path: Path) -> None:
    """Write a configuration as YAML, atomically; `load_config` reads an equal one back."""
    write_atomically(path, config_text(config).encode())


def config_text(config: RunConfig) -> str:
    """A configuration as YAML."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def load_config(path: Path) -> RunConfig:
    """Read a configuration from YAML.

    Raises:
        ConfigurationError: no such file, not YAML, unknown keys or values out of range, all in one line.
    """
    return validated(read_yaml(path, "configuration"), f"configuration {path}")


def _line(error: ErrorDetails) -> str:
    names = [str(part) for part in error["loc"]]
    path = ".".join(names)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(names[-1], _names(RunConfig), n=1)
        return f"unknown key {path}" + (f" (did you mean {near[0]}?)" if near else "")
    if error["type"] == "missing":
        return f"{path} is missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if isinstance(error["input"], dict | BaseModel):
        # A whole section whose values contradict each other; the message names them.
        return f"{path}: {message}" if path else message
    return f"{path} = {error['input']!r}: {message}"


def _names(section: type[Settings]) -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        found.append(name)
        kinds = [defense.Settings for _, defense in DEFENSES.items()] if name == "defense" else [field.annotation]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Settings):
                found += _names(kind)
    return found


def questionable_settings(config: RunConfig) -> list[str]:
    """Settings that are allowed but rarely intended, each with its remedy: fine-tuning without trained weights."""
    if config.model.weights != "none" or config.model.architecture == "two-convolutions":
        return []
    lines = []
    if config.training.learning_rate < 1e-4:
        rate = f"{config.training.learning_rate:g}"
        lines.append(
            f"random weights with the learning rate of fine-tuning, {rate}; try --run.training.learning-rate 1e-3"
        )
    if config.model.freeze_batchnorm:
        lines.append(
            "random weights with frozen BatchNorm, whose statistics then mean nothing; "
            "give --run.model.no-freeze-batchnorm"
        )
    return lines
