"""The user's own space: a YAML file that narrows, replaces, fixes, removes or adds parameters.

replace: false                 # true: only what this file names, and the groups that are switched on
parameters:
  attention_factor: {low: 2, high: 20}          # what is not given stays: here the logarithm
  ramp: {values: [linear, cosine]}
  pgd_steps: {fixed: 8}                         # in every trial
  ramp_length: null                             # not varied: the run's own value
  training.weight_decay: {low: 1e-7, high: 1e-3, log: true}
  top_margin: {path: defense.top_ranked_margin, low: 0.01, high: 0.1, only_if: {ramp: [linear]}}

The names that are known stand in `tune.groups`; those of a group may be named without switching the group on.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from colotride.errors import SearchError
from colotride.settings import Fraction, Settings
from colotride.tune.parameters import Condition


class Entry(Settings):
    """What the file says about one parameter; a known one keeps what is not given."""

    path: str | None = None
    """Dotted place in the configuration; a name with a dot is its own path."""
    relative_to: str | None = None
    """Dotted place of the number in units of which the value counts."""
    label: str | None = None
    """Its short name in tables; the name, if not given."""
    low: Fraction | None = None
    high: Fraction | None = None
    log: bool | None = None
    values: tuple[Any, ...] | None = Field(default=None, min_length=1)
    """Choices instead of a range."""
    fixed: Any = None
    """One value for all trials."""
    only_if: dict[str, Condition] | None = None
    """Names or paths of other settings, with their values ([linear, cosine]) or a lower limit ({above: 0})."""

    @property
    def fixes(self) -> bool:
        """Whether the parameter gets one value; a single choice is that too."""
        return "fixed" in self.model_fields_set or (self.values is not None and len(self.values) == 1)

    @property
    def only_value(self) -> Any:
        """The value that it gets."""
        return self.fixed if "fixed" in self.model_fields_set or self.values is None else self.values[0]


class SpaceFile(Settings):
    """The whole file."""

    replace: bool = False
    """Whether the default parameters are left out unless the file names them."""
    parameters: dict[str, Entry | None] = Field(min_length=1)
    """By name; null for one that is not to be varied."""


def read_space_file(file: Path) -> SpaceFile:
    """Read a space from YAML.

    Raises:
        SearchError: no such file, not YAML, unknown keys or contradicting ones, in one line.
    """
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"space {file} cannot be read ({error}); give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise SearchError(f"space {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise SearchError(
            f"space {file} holds {type(tree).__name__}, not the key 'parameters:' with parameters by name"
        )
    try:
        read = SpaceFile.model_validate(tree)
    except ValidationError as error:
        complaints = "; ".join(dict.fromkeys(map(_line, error.errors(include_url=False))))
        raise SearchError(f"space {file}: {complaints}") from None
    for name, entry in read.parameters.items():
        _check_keys(f"space {file}: {name}", entry)
    return read


def meant(word: str, known: Iterable[str]) -> str:
    """A question that names the known word that is nearest to a wrong one, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _check_keys(place: str, entry: Entry | None) -> None:
    if entry is None:
        return
    kinds = {"low or high": (entry.low, entry.high), "values": (entry.values,)}
    given = [kind for kind, parts in kinds.items() if any(part is not None for part in parts)]
    given += ["fixed"] if "fixed" in entry.model_fields_set else []
    if len(given) > 1:
        raise SearchError(f"{place} has {' and '.join(given)}; give one of them")
    odd = [one for one in entry.values or () if not isinstance(one, bool | int | float | str | None)]
    if odd:
        raise SearchError(f"{place}: {odd[0]!r} cannot be chosen; values are texts, numbers, true, false or null")


def _line(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if "only_if" in error["loc"][2:3]:
        # Each kind of condition complains of what the other one is.
        named = ".".join(str(part) for part in error["loc"][:4])
        return f"{named} is no condition; write values such as [linear, cosine], or {{above: 0}}"
    if error["type"] == "extra_forbidden":
        word = str(error["loc"][-1])
        return f"unknown key {place}{meant(word, [*Entry.model_fields, *SpaceFile.model_fields])}"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "too_short":
        return f"{place} is empty; name at least one"
    if error["type"] == "model_type":
        return f"{place} = {error['input']!r} is no parameter; write {{low: ..., high: ...}}, {{values: [...]}} or {{fixed: ...}}"
    return f"{place} = {error['input']!r}: {error['msg']}"
