"""What a search varies: named parameters, each with its range and its path in the run's configuration."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import Field, model_validator

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.settings import Fraction, Settings

Values = dict[str, Any]
"""Drawn values by the name of their parameter."""

TOLERANCE = 1e-9
"""Relative: dividing by epsilon and multiplying by it again may cost the last digits of a value."""


@runtime_checkable
class Suggests(Protocol):
    """The part of an Optuna trial that a space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...  # noqa: D102


class Above(Settings):
    """The condition that a number exceeds another one."""

    above: float


class OtherThan(Settings):
    """The condition that a value is none of those listed."""

    other_than: tuple[Any, ...]


Condition = tuple[Any, ...] | Above | OtherThan
"""What the value of another setting must be for a parameter to apply."""


def holds(condition: Condition, value: Any) -> bool:
    """Whether a value meets a condition. None, the value of a parameter that was not drawn, meets no condition."""
    if isinstance(condition, Above):
        return isinstance(value, int | float) and value > condition.above
    if isinstance(condition, OtherThan):
        return value is not None and value not in condition.other_than
    return value in condition


class _Parameter(Settings):
    name: str
    """Its name in tables, in Optuna and in MLflow."""
    label: str
    """Its short name in a table: the paper's letter where there is one."""
    path: str
    """Its dotted path in the configuration ("pgd.steps")."""
    relative_to: str | None = None
    """Dotted path of the setting in whose units the value is given."""
    only_if: dict[str, Condition] = Field(default_factory=dict)
    """Names of parameters drawn before, with the condition under which this one applies."""

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the parameter applies, given the values drawn so far."""
        return all(holds(condition, drawn.get(name)) for name, condition in self.only_if.items())


class _Range(_Parameter):
    log: bool = False
    """Whether the search is uniform on a logarithmic scale."""


class Continuous(_Range):
    """A real number in [low, high]."""

    kind: Literal["continuous"] = "continuous"
    low: Fraction
    high: Fraction

    @model_validator(mode="after")
    def _check(self) -> "Continuous":
        return _checked_range(self)


class Integer(_Range):
    """A whole number in [low, high]."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int

    @model_validator(mode="after")
    def _check(self) -> "Integer":
        return _checked_range(self)


class Choice(_Parameter):
    """One of several values."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1)


class Fixed(_Parameter):
    """A value that every trial gets. It is not drawn and has no column in any table."""

    value: Any


AnyParameter = Continuous | Integer | Choice
Parameter = Annotated[AnyParameter, Field(discriminator="kind")]
RangeT = TypeVar("RangeT", Continuous, Integer)


class Space(Settings):
    """All parameters of a search, in the order in which they are drawn."""

    parameters: tuple[Parameter, ...] = Field(min_length=1)
    fixed: tuple[Fixed, ...] = ()
    """Values that every trial has instead of the base's own."""

    @model_validator(mode="after")
    def _consistent(self) -> "Space":
        names: set[str] = set()
        paths: dict[str, str] = {}
        for one in (*self.fixed, *self.parameters):
            if one.name in names:
                raise ValueError(f"two parameters are called {one.name}; give one of them another name")
            if one.path in paths:
                raise ValueError(f"{paths[one.path]} and {one.name} both set {one.path}; leave one of them out")
            for other in one.only_if:
                if other not in names:
                    raise ValueError(f"{one.name} depends on {other}, which is not drawn before it")
            names.add(one.name)
            paths[one.path] = one.name
        return self

    def suggest(self, trial: Suggests) -> Values:
        """Draw every parameter that applies, given the values drawn before it."""
        drawn: Values = {}
        for one in self.parameters:
            if not one.applies(drawn):
                continue
            if isinstance(one, Choice):
                drawn[one.name] = trial.suggest_categorical(one.name, one.values)
            elif isinstance(one, Integer):
                drawn[one.name] = trial.suggest_int(one.name, one.low, one.high, log=one.log)
            else:
                drawn[one.name] = trial.suggest_float(one.name, one.low, one.high, log=one.log)
        return drawn

    def values_of(self, config: RunConfig, *, clip: bool = False) -> Values:
        """The values that a configuration has: how a search starts from what is known.

        Args:
            config: of any run that has the settings.
            clip: move a value outside its range to the nearest end (of choices: take the first) instead of raising.

        Raises:
            SearchError: a value lies outside its range, or the configuration has no such setting.
        """
        found: Values = {}
        for parameter in self.parameters:
            if parameter.applies(found):
                value = value_in(config, parameter)
                allowed = nearest(parameter, value)
                if not (clip or same(allowed, value)):
                    raise SearchError(
                        f"the run's {parameter.name} {value} lies outside the space ({range_text(parameter)}); "
                        "widen the space"
                    )
                found[parameter.name] = allowed
        return found

    def configure(self, config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
        """The configuration with the fixed and the drawn values.

        Raises:
            ConfigurationError: a value that the configuration refuses.
        """
        pairs: list[tuple[AnyParameter | Fixed, Any]] = [(one, one.value) for one in self.fixed]
        pairs += [(one, values[one.name]) for one in self.parameters if one.name in values]
        # Settings that serve as units for others come first.
        made = config.with_values({one.path: value for one, value in pairs if one.relative_to is None})
        relative = {one.path: value * look_up(made, one.relative_to) for one, value in pairs if one.relative_to}
        return made.with_values(relative) if relative else made


def value_in(config: RunConfig, parameter: AnyParameter | Fixed) -> Any:
    """The value that a configuration has for a parameter, in the parameter's units.

    Raises:
        SearchError: the configuration has no such setting, or the unit is 0.
    """
    value = look_up(config, parameter.path)
    if parameter.relative_to is None:
        return value
    unit = look_up(config, parameter.relative_to)
    if not isinstance(unit, int | float) or not isinstance(value, int | float) or unit == 0:
        raise SearchError(
            f"{parameter.name} counts {parameter.path} = {value} in units of {parameter.relative_to} = {unit}, "
            "which is impossible; leave it out of the space"
        )
    return value / unit


def look_up(config: RunConfig, path: str) -> Any:
    """The value at a dotted path of a configuration.

    Raises:
        SearchError: the configuration has no such setting.
    """
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Settings) or name not in type(value).model_fields:
            raise SearchError(f"the space varies {path}, which this run does not have; choose another defense or space")
        value = getattr(value, name)
    return value


def nearest(parameter: AnyParameter, value: Any) -> Any:
    """The allowed value nearest to any value: the value itself, an end of the range, or the first choice."""
    if isinstance(parameter, Choice):
        return next((choice for choice in parameter.values if same(choice, value)), parameter.values[0])
    if not isinstance(value, int | float) or isinstance(value, bool):
        return parameter.low
    return min(max(value, parameter.low), parameter.high)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, up to rounding where both are numbers."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return math.isclose(a, b, rel_tol=TOLERANCE) if numbers else type(a) is type(b) and a == b


def range_text(parameter: AnyParameter) -> str:
    """The range or the choices of a parameter, in words."""
    if isinstance(parameter, Choice):
        return ", ".join(map(str, parameter.values))
    return f"{parameter.low:g} to {parameter.high:g}"


def _checked_range(parameter: "RangeT") -> "RangeT":
    if not parameter.low < parameter.high:
        raise ValueError(f"{parameter.name}: low {parameter.low:g} is not below high {parameter.high:g}")
    if parameter.log and parameter.low <= 0:
        raise ValueError(f"{parameter.name}: a logarithmic range needs low above 0, not {parameter.low:g}")
    return parameter
