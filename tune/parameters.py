"""The kinds of parameters that a search can vary, and when one of them means something."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import Field, model_validator

from colotride.settings import Fraction, Settings

Values = dict[str, Any]

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


Condition = tuple[Any, ...] | Above
"""The values of another parameter with which one means something, or the number that it must exceed."""


def holds(condition: Condition, value: Any) -> bool:
    """Whether a value of another parameter meets a condition; None, where that one was not drawn, does not."""
    if isinstance(condition, Above):
        return isinstance(value, int | float) and value > condition.above
    return value in condition


class _Parameter(Settings):
    name: str
    """How tables, Optuna and MLflow call it."""
    label: str
    """Its short name in a table: the paper's letter where there is one."""
    path: str
    """Dotted place in the configuration ("pgd.steps")."""
    relative_to: str | None = None
    """Dotted place of a number in units of which the value counts."""
    only_if: dict[str, Condition] = Field(default_factory=dict)
    """Names of other parameters, drawn before, and the values with which this one means something."""

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether it means something beside the values drawn so far."""
        return all(holds(condition, drawn.get(name)) for name, condition in self.only_if.items())


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


class Fixed(_Parameter):
    """A value that every trial gets: not drawn, and no column of any table."""

    value: Any


AnyParameter = Continuous | Integer | Choice
Parameter = Annotated[AnyParameter, Field(discriminator="kind")]
RangeT = TypeVar("RangeT", Continuous, Integer)


def nearest(parameter: AnyParameter, value: Any) -> Any:
    """The value of a parameter that is nearest to any other value: itself, an end of the range, or the first choice."""
    if isinstance(parameter, Choice):
        return next((choice for choice in parameter.values if same(choice, value)), parameter.values[0])
    if not isinstance(value, int | float) or isinstance(value, bool):
        return parameter.low
    return min(max(value, parameter.low), parameter.high)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, up to rounding where both are numbers."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return math.isclose(a, b, rel_tol=TOLERANCE) if numbers else type(a) is type(b) and a == b


def extent(parameter: AnyParameter) -> str:
    """Everything that a parameter may be, in words."""
    if isinstance(parameter, Choice):
        return ", ".join(map(str, parameter.values))
    return f"{parameter.low:g} to {parameter.high:g}"


def _upright(parameter: "RangeT") -> "RangeT":
    if not parameter.low < parameter.high:
        raise ValueError(f"{parameter.name}: low {parameter.low:g} is not below high {parameter.high:g}")
    if parameter.log and parameter.low <= 0:
        raise ValueError(f"{parameter.name}: a logarithmic range needs low above 0, not {parameter.low:g}")
    return parameter
