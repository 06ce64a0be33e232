"""What a search varies: named parameters, each with its range and its place in the run's configuration."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.settings import Settings
from colotride.tune.groups import default_parameters
from colotride.tune.parameters import (
    AnyParameter,
    Choice,
    Continuous,
    Fixed,
    Integer,
    Parameter,
    Suggests,
    Values,
    extent,
    nearest,
    same,
)

__all__ = ["Choice", "Continuous", "Fixed", "Integer", "Parameter", "Space", "Suggests", "Values", "default_space"]


class Space(Settings):
    """All parameters of a search, in the order in which they are drawn."""

    parameters: tuple[Parameter, ...] = Field(min_length=1)
    fixed: tuple[Fixed, ...] = ()
    """What every trial has instead of the base's own value."""

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
        """Draw every parameter that means something beside those drawn before it."""
        drawn: Values = {}
        for parameter in self.parameters:
            if parameter.applies(drawn):
                drawn[parameter.name] = parameter.suggest(trial)
        return drawn

    def point_of(self, config: RunConfig, *, clip: bool = False) -> Values:
        """The values that a configuration has: how a search starts from what is known.

        Args:
            config: of any run that has the settings.
            clip: move a value outside its range to the nearest end (of choices: take the first) instead of raising.

        Raises:
            SearchError: a value lies outside its range, or the configuration has no such setting.
        """
        point: Values = {}
        for parameter in self.parameters:
            if parameter.applies(point):
                value = value_in(config, parameter)
                allowed = nearest(parameter, value)
                if not (clip or same(allowed, value)):
                    raise SearchError(
                        f"the run's {parameter.name} {value} lies outside the space ({extent(parameter)}); "
                        "widen the space"
                    )
                point[parameter.name] = allowed
        return point

    def configure(self, config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
        """The configuration in which the fixed and the drawn values stand at their places.

        Raises:
            ConfigurationError: a value that the configuration refuses.
        """
        pairs: list[tuple[AnyParameter | Fixed, Any]] = [(one, one.value) for one in self.fixed]
        pairs += [(one, values[one.name]) for one in self.parameters if one.name in values]
        # What others count in units of comes first.
        made = config.with_values({one.path: value for one, value in pairs if one.relative_to is None})
        return made.with_values(
            {one.path: value * look_up(made, one.relative_to) for one, value in pairs if one.relative_to is not None}
        )


def default_space() -> Space:
    """The paper's open values: attention factor, top-ranked coefficient, early disabling, and the PGD schedule."""
    parameters = default_parameters()
    names = {parameter.path: parameter.name for parameter in parameters}
    linked = (
        parameter.model_copy(
            update={"only_if": {names[path]: values for path, values in parameter.only_if.items() if path in names}}
        )
        for parameter in parameters
    )
    return Space(parameters=tuple(linked))


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
            "which cannot be done; leave it out of the space"
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
