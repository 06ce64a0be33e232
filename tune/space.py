"""What a search varies: named parameters, each with its range and its place in the run's configuration."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.settings import Fraction, Settings

Values = dict[str, Any]


class Suggests(Protocol):
    """The part of an Optuna trial that a space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...  # noqa: D102


class _Parameter(Settings):
    name: str
    """How tables, Optuna and MLflow call it."""
    label: str
    """Its short name in a table: the paper's letter where there is one."""
    path: str
    """Dotted place in the configuration ("pgd.steps")."""
    relative_to: str | None = None
    """Dotted place of a number in units of which the value counts."""
    only_if: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Names of other parameters and the values for which this one means something."""


class _Range(_Parameter):
    log: bool = False
    """Whether to search evenly in the logarithm."""


class Continuous(_Range):
    """A real number in [low, high]."""

    kind: Literal["continuous"] = "continuous"
    low: Fraction
    high: Fraction

    @model_validator(mode="after")
    def _upright(self) -> "Continuous":
        return _upright(self)

    def suggest(self, trial: Suggests) -> Any:
        """Ask Optuna for a value."""
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


class Integer(_Range):
    """A whole number in [low, high]."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int

    @model_validator(mode="after")
    def _upright(self) -> "Integer":
        return _upright(self)

    def suggest(self, trial: Suggests) -> Any:
        """Ask Optuna for a value."""
        return trial.suggest_int(self.name, self.low, self.high, log=self.log)


class Choice(_Parameter):
    """One of several values."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1)

    def suggest(self, trial: Suggests) -> Any:
        """Ask Optuna for a value."""
        return trial.suggest_categorical(self.name, self.values)


RangeT = TypeVar("RangeT", Continuous, Integer)

Parameter = Annotated[Continuous | Integer | Choice, Field(discriminator="kind")]


class Space(Settings):
    """All parameters of a search, in the order in which they are drawn."""

    parameters: tuple[Parameter, ...] = Field(min_length=1)

    def suggest(self, trial: Suggests) -> Values:
        """Draw every parameter that means something beside those drawn before it."""
        drawn: Values = {}
        for parameter in self.parameters:
            if _applies(parameter, drawn):
                drawn[parameter.name] = parameter.suggest(trial)
        return drawn

    def point_of(self, config: RunConfig) -> Values:
        """The values that a configuration has: how a search starts from what is known.

        Raises:
            SearchError: a value lies outside its range, or the configuration has no such setting.
        """
        point: Values = {}
        for parameter in self.parameters:
            if not _applies(parameter, point):
                continue
            value = _look_up(config, parameter.path)
            if parameter.relative_to is not None:
                value = value / _look_up(config, parameter.relative_to)
            point[parameter.name] = _inside(parameter, value)
        return point

    def configure(self, config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
        """The configuration in which the drawn values stand at their places.

        Raises:
            ConfigurationError: a value that the configuration refuses.
        """
        changes: Values = {}
        for parameter in self.parameters:
            if parameter.name not in values:
                continue
            value = values[parameter.name]
            if parameter.relative_to is not None:
                value = value * _look_up(config, parameter.relative_to)
            changes[parameter.path] = value
        return config.with_values(changes)


def default_space() -> Space:
    """The paper's open values: attention factor, top-ranked coefficient, early disabling, and the PGD schedule."""
    return Space(
        parameters=(
            Continuous(
                name="attention_factor", label="λ", path="collapseness.attention_factor", low=0.5, high=50.0, log=True
            ),
            Continuous(
                name="top_ranked_coefficient", label="η", path="defense.top_ranked_coefficient", low=0.0, high=1.5
            ),
            Continuous(
                name="assist_disabled_fraction",
                label="off",
                path="defense.assist_disabled_fraction",
                low=0.0,
                high=1.0,
            ),
            Integer(name="pgd_steps", label="steps", path="pgd.steps", low=2, high=32, log=True),
            Continuous(
                name="step_size_over_epsilon",
                label="α/ε",
                path="pgd.step_size",
                relative_to="pgd.epsilon",
                low=0.02,
                high=0.5,
                log=True,
            ),
            Choice(name="ramp", label="ramp", path="pgd.ramp", values=("linear", "cosine", "constant")),
            Continuous(
                name="ramp_length",
                label="len",
                path="pgd.ramp_length",
                low=0.1,
                high=1.0,
                only_if={"ramp": ("linear", "cosine")},
            ),
        )
    )


def _upright(parameter: "RangeT") -> "RangeT":
    if not parameter.low < parameter.high:
        raise ValueError(f"{parameter.name}: low {parameter.low:g} is not below high {parameter.high:g}")
    if parameter.log and parameter.low <= 0:
        raise ValueError(f"{parameter.name}: a logarithmic range needs low above 0, not {parameter.low:g}")
    return parameter


def _applies(parameter: Continuous | Integer | Choice, drawn: Values) -> bool:
    return all(drawn.get(name) in values for name, values in parameter.only_if.items())


def _look_up(config: RunConfig, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Settings) or name not in type(value).model_fields:
            raise SearchError(f"the space varies {path}, which this run does not have; choose another defense or space")
        value = getattr(value, name)
    return value


def _inside(parameter: Continuous | Integer | Choice, value: Any) -> Any:
    if isinstance(parameter, Choice):
        inside, bounds = value in parameter.values, ", ".join(map(str, parameter.values))
    else:
        inside, bounds = parameter.low <= value <= parameter.high, f"{parameter.low:g} to {parameter.high:g}"
    if not inside:
        raise SearchError(f"the run's {parameter.name} {value} lies outside the space ({bounds}); widen the space")
    return value
