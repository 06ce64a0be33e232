"""The entries of a user's space, turned into parameters: known ones changed, new ones made from their path."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from colotride.config import RunConfig
from colotride.errors import ConfigurationError, SearchError
from colotride.settings import fraction
from colotride.tune.parameters import AnyParameter, Choice, Condition, Continuous, Fixed, Integer
from colotride.tune.space import look_up
from colotride.tune.space_file import Entry, SpaceFile, meant

SHARED = (
    "evaluation", "validation", "health", "seed", "training.epochs", "defense.name",
    "data.name", "data.root", "data.hold_out_validation", "data.validation_fraction",
)  # fmt: skip
"""What all trials have in common: with another data set, other attacks or more epochs they could not be compared."""


@dataclass(frozen=True)
class Applied:
    """A space after the user's file."""

    parameters: list[AnyParameter]
    fixed: list[Fixed]
    named: frozenset[str]
    """Names of what the file asks for."""


def apply_file(
    file: SpaceFile,
    defaults: Sequence[AnyParameter],
    groups: Sequence[AnyParameter],
    catalogue: Sequence[AnyParameter],
    base: RunConfig,
    origin: str,
) -> Applied:
    """Put a user's entries in the place of the known parameters of the same name or path, or after them.

    Args:
        file: the user's.
        defaults: left out where the file replaces them.
        groups: what was switched on besides.
        catalogue: everything that is known by name, whether it is on or not.
        base: says of what type a setting is.
        origin: for messages.

    Raises:
        SearchError: an unknown name, a setting that the run does not have, or values that it refuses.
    """
    chosen = {one.name: one for one in (*(() if file.replace else defaults), *groups)}
    known = {one.name: one for one in catalogue}
    names = {name: _name(name, known) for name in file.parameters}
    paths = _paths(file, names, known)
    fixed: list[Fixed] = []
    wanted: list[str] = []
    for written, entry in file.parameters.items():
        place, name = f"{origin}: {written}", names[written]
        if name in wanted:
            raise SearchError(f"{place} is a second entry for {name}; keep one of them")
        if entry is None:
            if name not in known:
                raise SearchError(f"{place} is no parameter that could be taken out{meant(name, known)}")
            chosen.pop(name, None)
            continue
        template = _template(place, name, written, entry, known)
        _check_place(place, template, base)
        path = template["path"]
        chosen = {key: one for key, one in chosen.items() if key == name or key in wanted or one.path != path}
        wanted.append(name)
        if entry.fixes:
            chosen.pop(name, None)
            fixed.append(Fixed(**template, value=_canonical(place, template, entry.only_value, base)))
        else:
            chosen[name] = _parameter(place, template, entry, known.get(name), paths, base)
    return Applied(list(chosen.values()), fixed, frozenset(wanted))


def _name(written: str, known: dict[str, AnyParameter]) -> str:
    """The name of an entry: as it is written, or that of the parameter at the path that is written."""
    if "." not in written:
        return written
    at_path = (one.name for one in known.values() if one.path == written and one.relative_to is None)
    return next(at_path, written.rsplit(".", 1)[1])


def _paths(file: SpaceFile, names: dict[str, str], known: dict[str, AnyParameter]) -> dict[str, str]:
    """Dotted paths by name, of all parameters that a condition may refer to."""
    paths = {name: one.path for name, one in known.items()}
    for written, entry in file.parameters.items():
        if entry is not None and (entry.path or "." in written):
            paths[names[written]] = entry.path or written
    return paths


def _template(place: str, name: str, written: str, entry: Entry, known: dict[str, AnyParameter]) -> dict[str, Any]:
    """Name, label, path and unit of a parameter."""
    old = known.get(name)
    path = entry.path or (written if "." in written else None)
    if old is not None:
        if (path or old.path) != old.path:
            raise SearchError(f"{place} stands for {old.path}; vary {path} under another name")
        unit = old.relative_to if entry.relative_to is None else entry.relative_to
        return {"name": name, "label": entry.label or old.label, "path": old.path, "relative_to": unit}
    if path is None:
        raise SearchError(f"{place} is not known{meant(name, known)}; say with 'path:' which setting it is")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise SearchError(f"{place} is no usable name; take letters, digits, _ and -")
    return {"name": name, "label": entry.label or name, "path": path, "relative_to": entry.relative_to}


def _check_place(place: str, template: dict[str, Any], base: RunConfig) -> None:
    path = template["path"]
    if any(path == shared or path.startswith(f"{shared}.") for shared in SHARED):
        raise SearchError(
            f"{place}: {path} must be the same in all trials, or they could not be compared; leave it out"
        )
    for wanted in filter(None, (path, template["relative_to"])):
        try:
            look_up(base, wanted)
        except SearchError:
            raise SearchError(
                f"{place}: this run has no setting {wanted}{meant(wanted, all_paths(base))}; see --help for their names"
            ) from None


def _parameter(
    place: str,
    template: dict[str, Any],
    entry: Entry,
    old: AnyParameter | None,
    paths: dict[str, str],
    base: RunConfig,
) -> AnyParameter:
    conditions = old.only_if if old is not None else {}
    if entry.only_if is not None:
        conditions = conditions | _conditions(place, entry.only_if, paths, base)
    template = template | {"only_if": conditions}
    if entry.values is not None or (isinstance(old, Choice) and entry.low is None and entry.high is None):
        values = entry.values or (old.values if isinstance(old, Choice) else ())
        if entry.log is not None:
            raise SearchError(f"{place} has 'log' beside values; it belongs to a range")
        return Choice(**template, values=tuple(_canonical(place, template, value, base) for value in values))
    former = old if isinstance(old, Continuous | Integer) else None
    low = entry.low if entry.low is not None else (former.low if former else None)
    high = entry.high if entry.high is not None else (former.high if former else None)
    if low is None or high is None:
        raise SearchError(f"{place} needs low and high, values or fixed")
    ends = [_canonical(place, template, end, base) for end in (low, high)]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise SearchError(f"{place}: {template['path']} has no range; give values")
    kind = Integer if all(isinstance(end, int) for end in ends) else Continuous
    log = entry.log if entry.log is not None else (former.log if former else False)
    try:
        return kind(**template, low=ends[0], high=ends[1], log=log)
    except ValidationError as error:
        complaint = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise SearchError(f"{place.rpartition(': ')[0]}: {complaint}") from None


def _conditions(
    place: str, given: dict[str, Condition], paths: dict[str, str], base: RunConfig
) -> dict[str, Condition]:
    """The conditions of an entry by path instead of by name."""
    found = {paths.get(name, name): condition for name, condition in given.items()}
    there = all_paths(base)
    for path in found:
        if path not in there:
            raise SearchError(
                f"{place}: only_if names {path}, which this run does not have{meant(path, [*paths, *there])}"
            )
    return found


def _canonical(place: str, template: dict[str, Any], value: Any, base: RunConfig) -> Any:
    """A value as the configuration holds it: YAML's "1e-3" is a text, and 8.0 steps are 8."""
    path, unit = template["path"], template["relative_to"]
    try:
        if unit is None:
            return look_up(base.with_values({path: value}), path)
        number = fraction(str(value))
        base.with_values({path: number * look_up(base, unit)})
    except ConfigurationError as error:
        raise SearchError(f"{place}: {str(error).removeprefix('configuration: ')}") from None
    except (TypeError, ValueError):
        raise SearchError(f"{place} = {value!r} is no number of units of {unit}; give numbers") from None
    return number


def all_paths(config: RunConfig) -> list[str]:
    """Dotted paths of all settings of a run."""
    found: list[str] = []

    def walk(tree: dict[str, Any], above: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{above}{name}.")
            else:
                found.append(f"{above}{name}")

    walk(config.model_dump(), "")
    return found
