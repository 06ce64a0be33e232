"""The space of one search, read and checked: the defaults in `default_space.yaml`, groups, and the user's own file.

The user's file narrows, replaces, fixes, removes or adds parameters:

replace: false                 # true: only what this file names, and the groups that are switched on
parameters:
  attention_factor: {low: 2, high: 20}          # what is not given stays: here the logarithm
  ramp: {values: [linear, cosine]}
  pgd_steps: {fixed: 8}                         # in every trial
  ramp_length: null                             # not varied: the run's own value
  training.weight_decay: {low: 1e-7, high: 1e-3, log: true}
  top_margin: {path: defense.top_ranked_margin, low: 0.01, high: 0.1, only_if: {ramp: [linear]}}

A parameter of a group may be named without switching the group on.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from colotride.config import RunConfig
from colotride.documents import read_yaml
from colotride.errors import ConfigurationError, SearchError
from colotride.registry import MINERS
from colotride.settings import Fraction, Settings, fraction
from colotride.tune.parameters import (
    Above,
    AnyParameter,
    Choice,
    Condition,
    Continuous,
    Fixed,
    Integer,
    OtherThan,
    Space,
    holds,
    look_up,
    range_text,
)

SHARED = (
    "evaluation", "validation", "health", "seed", "plugins", "training.epochs", "defense.name",
    "data.name", "data.root", "data.hold_out_validation", "data.validation_fraction",
)  # fmt: skip
"""What all trials have in common: with another data set, other attacks or more epochs they could not be compared."""


class ParameterEntry(Settings):
    """What a file says about one parameter. A known parameter keeps the keys that are not given."""

    path: str | None = None
    """Dotted path in the configuration; a name with a dot is its own path."""
    relative_to: str | None = None
    """Dotted path of the setting in whose units the value is given."""
    label: str | None = None
    """Its short name in tables; the name, if not given."""
    low: Fraction | None = None
    high: Fraction | None = None
    within_factor: float | None = Field(default=None, gt=1)
    """Stands for low and high: the run's own value divided and multiplied by this number."""
    log: bool | None = None
    values: tuple[Any, ...] | None = Field(default=None, min_length=1)
    """Choices instead of a range."""
    fixed: Any = None
    """One value for all trials."""
    only_if: dict[str, Condition] | None = None
    """Names or paths of other settings, with a condition: [linear, cosine], {above: 0} or {other_than: [natural]}."""

    @property
    def is_fixed(self) -> bool:
        """Whether the parameter gets one value, as a single choice does too."""
        return "fixed" in self.model_fields_set or (self.values is not None and len(self.values) == 1)

    @property
    def fixed_value(self) -> Any:
        """The one value that the parameter gets."""
        return self.fixed if "fixed" in self.model_fields_set or self.values is None else self.values[0]


class SpaceFile(Settings):
    """A user's file."""

    replace: bool = False
    """Whether the default parameters are left out unless the file names them."""
    parameters: dict[str, ParameterEntry | None] = Field(min_length=1)
    """By name; null for one that is not varied."""


class DefaultSpace(Settings):
    """The file of the defaults."""

    parameters: dict[str, ParameterEntry]
    groups: dict[str, dict[str, ParameterEntry]]

    @property
    def all(self) -> dict[str, ParameterEntry]:
        """Every parameter that is known by name, whether it is searched by default or not."""
        return self.parameters | {name: entry for group in self.groups.values() for name, entry in group.items()}


def default_space() -> DefaultSpace:
    """What a search varies by default, and the groups that may be added."""
    text = files("colotride.tune").joinpath("default_space.yaml").read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    tree["groups"]["mining"]["miner"]["values"] = MINERS.names()
    return DefaultSpace.model_validate(tree)


def build_space(
    base: RunConfig, *, groups: Sequence[str] = (), file: Path | None = None, left_out: Collection[str] = ()
) -> Space:
    """The space of a search: the parameters that apply to the run's defense, changed as the user's file says.

    Args:
        base: the run that the trials vary.
        groups: names of optional groups: margins, learning-rate, weighting, readings, phases, mining, intra-class,
            robust-training, stop, cheap-perturbation.
        file: the user's YAML file.
        left_out: names of default parameters that are not varied.

    Raises:
        SearchError: an unknown group, an unusable file, a setting that the run does not have or that has no meaning
            beside the others, a range whose ends are swapped, or that lies outside what the setting may be, or nothing left to vary.
    """
    defaults = default_space()
    for name in groups:
        if name not in defaults.groups:
            raise SearchError(
                f"no group {name!r}{did_you_mean(name, defaults.groups)}; there are {', '.join(defaults.groups)}"
            )
    added = {name: entry for group in groups for name, entry in defaults.groups[group].items()}
    chosen = {name: entry for name, entry in (defaults.parameters | added).items() if name not in left_out}
    named, origin = set[str](), "the space"
    if file is not None:
        own, origin = read_space_file(file), f"space {file}"
        chosen = merge(own, added if own.replace else chosen, defaults.all, base, origin)
        named = {_name(written, defaults.all) for written, entry in own.parameters.items() if entry is not None}
    parameters: list[AnyParameter] = []
    fixed: list[Fixed] = []
    for name, entry in chosen.items():
        if name in named or has_setting(base, str(entry.path)):
            one = _parameter(f"{origin}: {name}", name, entry, base)
            fixed.append(one) if isinstance(one, Fixed) else parameters.append(one)
    varied = settle_conditions(parameters, _with_fixed(base, fixed, origin), named, origin)
    for group in groups:
        if file is None and not {one.name for one in varied} & defaults.groups[group].keys():
            raise SearchError(
                f"nothing of group {group!r} means anything to defense {base.defense.name!r}; leave it out"
            )
    if not varied:
        raise SearchError(
            f"{origin} is empty: nothing in it means anything to defense {base.defense.name!r}; "
            f"add a group ({', '.join(defaults.groups)}) or parameters of your own"
        )
    return _checked(varied, fixed, base, origin)


def has_meaning(group: str, base: RunConfig) -> bool:
    """Whether anything of an optional group applies to a run's defense, whatever else is varied."""
    for name, entry in default_space().groups[group].items():
        if has_setting(base, str(entry.path)):
            one = _parameter(f"the space: {name}", name, entry, base)
            if not isinstance(one, Fixed) and settle_conditions([one], base, (), "the space"):
                return True
    return False


def read_space_file(file: Path) -> SpaceFile:
    """Read a user's space from YAML.

    Raises:
        SearchError: no such file, not YAML, unknown keys or contradicting ones, in one line.
    """
    tree = read_yaml(file, "space", SearchError)
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


def merge(
    file: SpaceFile,
    chosen: Mapping[str, ParameterEntry],
    known: Mapping[str, ParameterEntry],
    base: RunConfig,
    origin: str,
) -> dict[str, ParameterEntry]:
    """The chosen entries with a user's in the place of those of the same name or path, or after them.

    Args:
        file: the user's.
        chosen: what is searched without the file.
        known: everything that is known by name, whether it is chosen or not.
        base: says which settings there are.
        origin: for messages.

    Raises:
        SearchError: an unknown name, a setting that the run does not have or that all trials share, or two entries
            for the same parameter.
    """
    merged = dict(chosen)
    paths = {name: str(entry.path) for name, entry in known.items()}
    for written, entry in file.parameters.items():
        if entry is not None and (entry.path or "." in written):
            paths[_name(written, known)] = entry.path or written
    named: set[str] = set()
    for written, entry in file.parameters.items():
        subject, name = f"{origin}: {written}", _name(written, known)
        if name in named:
            raise SearchError(f"{subject} is a second entry for {name}; keep one of them")
        if entry is None:
            if name not in known:
                raise SearchError(f"{subject} is not a parameter that could be taken out{did_you_mean(name, known)}")
            merged.pop(name, None)
            continue
        whole = _completed(subject, name, written, entry, known, paths, base)
        _check_path(subject, whole, base)
        merged = {key: one for key, one in merged.items() if key == name or key in named or one.path != whole.path}
        named.add(name)
        merged[name] = whole
    return merged


def settle_conditions(
    parameters: Sequence[AnyParameter], base: RunConfig, named: Collection[str], origin: str
) -> list[AnyParameter]:
    """Order parameters so that each follows those on which it depends, and leave out those that never apply.

    A condition on a setting that is varied becomes one on that parameter's name. One on a setting that is not varied
    is decided by the base: it always holds, or the parameter goes.

    Args:
        parameters: with conditions by dotted path; a path that the base does not have restricts nothing.
        base: with all fixed values in place.
        named: names of parameters that the user asked for and that must therefore have a meaning.
        origin: for messages.

    Raises:
        SearchError: a parameter that the user named has no meaning, or parameters depend on each other in a circle.
    """
    placed: list[AnyParameter] = []
    waiting = list(parameters)
    while waiting:
        blocked = {one.path for one in waiting}
        ready = next((one for one in waiting if not blocked & one.only_if.keys()), None)
        if ready is None:
            circle = ", ".join(one.name for one in waiting)
            raise SearchError(f"{origin}: {circle} wait for each other's values; take out an only_if")
        waiting.remove(ready)
        obstacle = _obstacle(ready, placed, base)
        if obstacle is None:
            parents = {one.path: one for one in placed}
            conditions = {
                parents[path].name: condition
                for path, condition in ready.only_if.items()
                if path in parents and not _always_holds(parents[path], condition)
            }
            placed.append(ready.model_copy(update={"only_if": conditions}))
        elif ready.name in named:
            raise SearchError(f"{origin}: {ready.name} means nothing here: {obstacle}; leave it out")
    return placed


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the known word nearest to a wrong one, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def has_setting(config: RunConfig, path: str) -> bool:
    """Whether a configuration has a setting."""
    try:
        look_up(config, path)
    except SearchError:
        return False
    return True


def all_paths(config: RunConfig) -> list[str]:
    """Dotted paths of all settings of a run."""

    def walk(tree: dict[str, Any], above: str) -> Iterable[str]:
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, f"{above}{name}.")
            else:
                yield f"{above}{name}"

    return list(walk(config.model_dump(), ""))


def _name(written: str, known: Mapping[str, ParameterEntry]) -> str:
    """The name of an entry: as it is written, or that of the parameter at the path that is written."""
    if "." not in written:
        return written
    at_path = (name for name, entry in known.items() if entry.path == written and entry.relative_to is None)
    return next(at_path, written.rsplit(".", 1)[1])


def _completed(
    subject: str,
    name: str,
    written: str,
    entry: ParameterEntry,
    known: Mapping[str, ParameterEntry],
    paths: Mapping[str, str],
    base: RunConfig,
) -> ParameterEntry:
    """A user's entry, completed by the known one, with conditions by path."""
    old = known.get(name, ParameterEntry())
    path = entry.path or (written if "." in written else old.path)
    if path is None:
        raise SearchError(f"{subject} is not known{did_you_mean(name, known)}; say with 'path:' which setting it is")
    if old.path is not None and path != old.path:
        raise SearchError(f"{subject} stands for {old.path}; vary {path} under another name")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise SearchError(f"{subject} is not a usable name; take letters, digits, _ and -")
    kept = {key: getattr(old, key) for key in old.model_fields_set}
    if entry.is_fixed or entry.values is not None:
        kept = {key: value for key, value in kept.items() if key not in ("low", "high", "within_factor", "log")}
    if entry.is_fixed or entry.low is not None or entry.high is not None:
        kept.pop("values", None)
    if entry.log is not None and (entry.values or kept.get("values")):
        raise SearchError(f"{subject} has 'log' beside values; it belongs to a range")
    conditions = {**(old.only_if or {}), **_conditions(subject, entry.only_if or {}, paths, base)}
    given = {key: getattr(entry, key) for key in entry.model_fields_set}
    return ParameterEntry(**{**kept, **given, "path": path, "only_if": conditions})


def _conditions(
    subject: str, given: Mapping[str, Condition], paths: Mapping[str, str], base: RunConfig
) -> dict[str, Condition]:
    """The conditions of an entry by path instead of by name."""
    found = {paths.get(name, name): condition for name, condition in given.items()}
    there = all_paths(base)
    for path in found:
        if path not in there:
            raise SearchError(
                f"{subject}: only_if names {path}, which this run does not have{did_you_mean(path, [*paths, *there])}"
            )
    return found


def _check_path(subject: str, entry: ParameterEntry, base: RunConfig) -> None:
    path = str(entry.path)
    if any(path == shared or path.startswith(f"{shared}.") for shared in SHARED):
        raise SearchError(
            f"{subject}: {path} must be the same in all trials, or they could not be compared; leave it out"
        )
    for wanted in filter(None, (path, entry.relative_to)):
        if not has_setting(base, wanted):
            raise SearchError(
                f"{subject}: this run has no setting {wanted}{did_you_mean(wanted, all_paths(base))}; "
                "see --help-all for their names"
            )


def _parameter(subject: str, name: str, entry: ParameterEntry, base: RunConfig) -> AnyParameter | Fixed:
    """The parameter that an entry describes, with values as the configuration holds them."""
    common: dict[str, Any] = {
        "name": name,
        "label": entry.label or name,
        "path": entry.path,
        "relative_to": entry.relative_to,
        "only_if": entry.only_if or {},
    }
    if entry.is_fixed:
        return Fixed(**{**common, "only_if": {}}, value=_canonical(subject, entry, entry.fixed_value, base))
    if entry.values is not None:
        return Choice(**common, values=tuple(_canonical(subject, entry, value, base) for value in entry.values))
    low, high = entry.low, entry.high
    if entry.within_factor is not None:
        own = look_up(base, str(entry.path))
        low = own / entry.within_factor if low is None else low
        high = own * entry.within_factor if high is None else high
    if low is None or high is None:
        raise SearchError(f"{subject} needs low and high, values or fixed")
    ends = [_canonical(subject, entry, end, base) for end in (low, high)]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise SearchError(f"{subject}: {entry.path} has no range; give values")
    kind = Integer if all(isinstance(end, int) for end in ends) else Continuous
    try:
        return kind(**common, low=ends[0], high=ends[1], log=bool(entry.log))
    except ValidationError as error:
        raise SearchError(f"{subject.rpartition(': ')[0]}: {_first_message(error)}") from None


def _canonical(subject: str, entry: ParameterEntry, value: Any, base: RunConfig) -> Any:
    """A value as the configuration holds it: YAML's "1e-3" is a text, and 8.0 steps are 8."""
    path, unit = str(entry.path), entry.relative_to
    try:
        if unit is None:
            return look_up(base.with_values({path: value}), path)
        number = fraction(str(value))
        base.with_values({path: number * look_up(base, unit)})
    except ConfigurationError as error:
        raise SearchError(f"{subject}: {str(error).removeprefix('configuration: ')}") from None
    except (TypeError, ValueError):
        raise SearchError(f"{subject} = {value!r} is not a number of units of {unit}; give numbers") from None
    return number


def _with_fixed(base: RunConfig, fixed: Iterable[Fixed], origin: str) -> RunConfig:
    for one in sorted(fixed, key=lambda one: one.relative_to is not None):
        unit = look_up(base, one.relative_to) if one.relative_to else None
        try:
            base = base.with_values({one.path: one.value if unit is None else one.value * unit})
        except ConfigurationError as error:
            raise SearchError(f"{origin}: {one.name}: {str(error).removeprefix('configuration: ')}") from None
    return base


def _checked(parameters: Sequence[AnyParameter], fixed: Sequence[Fixed], base: RunConfig, origin: str) -> Space:
    """A space of which every end of every range, and every choice, makes a valid run."""
    try:
        space = Space(parameters=tuple(parameters), fixed=tuple(fixed))
    except ValidationError as error:
        raise SearchError(f"{origin}: {_first_message(error)}") from None
    for one in space.parameters:
        for value in one.values if isinstance(one, Choice) else (one.low, one.high):
            try:
                space.configure(base, {one.name: value})
            except ConfigurationError as error:
                raise SearchError(f"{origin}: {one.name}: {str(error).removeprefix('configuration: ')}") from None
    return space


def _obstacle(parameter: AnyParameter, placed: Sequence[AnyParameter], base: RunConfig) -> str | None:
    """Why a parameter can never apply, or None."""
    for path, condition in parameter.only_if.items():
        wanted = _condition_text(condition)
        parent = next((one for one in placed if one.path == path), None)
        if parent is not None:
            if not _can_hold(parent, condition):
                return f"it needs {parent.name} {wanted}, which is {range_text(parent)}"
        elif has_setting(base, path) and not holds(condition, look_up(base, path)):
            return f"it needs {path} {wanted}, which is {look_up(base, path)}"
    return None


def _condition_text(condition: Condition) -> str:
    if isinstance(condition, Above):
        return f"above {condition.above:g}"
    if isinstance(condition, OtherThan):
        return f"other than {' or '.join(map(str, condition.other_than))}"
    return " or ".join(map(str, condition))


def _can_hold(parent: AnyParameter, condition: Condition) -> bool:
    if isinstance(parent, Choice):
        return any(holds(condition, value) for value in parent.values)
    if isinstance(condition, Above):
        return parent.high > condition.above
    if isinstance(condition, OtherThan):
        return True
    return any(isinstance(value, int | float) and parent.low <= value <= parent.high for value in condition)


def _always_holds(parent: AnyParameter, condition: Condition) -> bool:
    """Whether a condition holds in every trial, so that it need not be checked."""
    if parent.only_if:
        return False
    if isinstance(parent, Choice):
        return all(holds(condition, value) for value in parent.values)
    return isinstance(condition, Above) and parent.low > condition.above


def _check_keys(subject: str, entry: ParameterEntry | None) -> None:
    if entry is None:
        return
    kinds = {"low or high": (entry.low, entry.high), "values": (entry.values,)}
    given = [kind for kind, parts in kinds.items() if any(part is not None for part in parts)]
    given += ["fixed"] if "fixed" in entry.model_fields_set else []
    if len(given) > 1:
        raise SearchError(f"{subject} has {' and '.join(given)}; give one of them")
    odd = [one for one in entry.values or () if not isinstance(one, bool | int | float | str | None)]
    if odd:
        raise SearchError(f"{subject}: {odd[0]!r} cannot be chosen; values are texts, numbers, true, false or null")


def _first_message(error: ValidationError) -> str:
    """The first complaint of pydantic, without its prefix."""
    return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")


def _line(error: ErrorDetails) -> str:
    subject = ".".join(str(part) for part in error["loc"])
    if "only_if" in error["loc"][2:3]:
        # Each kind of condition complains that it was not another one.
        named = ".".join(str(part) for part in error["loc"][:4])
        return (
            f"{named} is not a condition; write values such as [linear, cosine], {{above: 0}} or {{other_than: [...]}}"
        )
    if error["type"] == "extra_forbidden":
        word = str(error["loc"][-1])
        return f"unknown key {subject}{did_you_mean(word, [*ParameterEntry.model_fields, *SpaceFile.model_fields])}"
    if error["type"] == "missing":
        return f"{subject} is missing"
    if error["type"] == "too_short":
        return f"{subject} is empty; name at least one"
    if error["type"] == "model_type":
        return f"{subject} = {error['input']!r} is not a parameter; write {{low: ..., high: ...}}, {{values: [...]}} or {{fixed: ...}}"
    return f"{subject} = {error['input']!r}: {error['msg']}"
