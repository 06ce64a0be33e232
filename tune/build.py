"""The space of one search: what is known, what the user asks for, and what the run has, put together and checked."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from colotride.config import RunConfig
from colotride.errors import ConfigurationError, SearchError
from colotride.tune.conditions import settle
from colotride.tune.groups import default_parameters, optional_groups
from colotride.tune.parameters import AnyParameter, Fixed
from colotride.tune.space import Choice, Space, look_up
from colotride.tune.space_file import meant, read_space_file
from colotride.tune.user_parameters import apply_file


def build_space(base: RunConfig, *, groups: Sequence[str] = (), file: Path | None = None) -> Space:
    """The space of a search.

    The default parameters and those of the groups, as far as they mean something for the run's defense; then the
    user's file, which may narrow, replace, fix, remove or add any (`tune.space_file` shows its form).

    Args:
        base: the run that the trials vary.
        groups: names of optional groups: margins, learning-rate, weighting, readings, phases, mining, intra-class.
        file: the user's YAML file.

    Raises:
        SearchError: an unknown group, an unusable file, a setting that the run does not have or that means nothing
            beside the others, a range upside down or outside what the setting may be, or nothing left to vary.
    """
    known = optional_groups(base)
    for name in groups:
        if name not in known:
            raise SearchError(f"no group {name!r}{meant(name, known)}; there are {', '.join(known)}")
    defaults = list(default_parameters())
    added = [parameter for name in dict.fromkeys(groups) for parameter in known[name]]
    named: frozenset[str] = frozenset()
    fixed: list[Fixed] = []
    if file is not None:
        catalogue = [*defaults, *(parameter for group in known.values() for parameter in group)]
        own = apply_file(read_space_file(file), defaults, added, catalogue, base, f"space {file}")
        parameters, fixed, named = own.parameters, own.fixed, own.named
    else:
        parameters = [*defaults, *added]
    origin = f"space {file}" if file else "the space"
    parameters = [one for one in parameters if one.name in named or has(base, one.path)]
    varied = settle(parameters, with_fixed(base, fixed, origin), named, origin)
    for name in dict.fromkeys(groups):
        if file is None and not {one.name for one in varied} & {one.name for one in known[name]}:
            raise SearchError(
                f"nothing of group {name!r} means anything to defense {base.defense.name!r}; leave it out"
            )
    if not varied:
        raise SearchError(
            f"{origin} is empty: nothing in it means anything to defense {base.defense.name!r}; "
            f"add a group ({', '.join(known)}) or parameters of your own"
        )
    return checked(varied, fixed, base, origin)


def checked(parameters: Sequence[AnyParameter], fixed: Sequence[Fixed], base: RunConfig, origin: str) -> Space:
    """A space of which every end of every range, and every choice, makes a valid run.

    Raises:
        SearchError: with what the configuration says against the first value that it refuses.
    """
    try:
        space = Space(parameters=tuple(parameters), fixed=tuple(fixed))
    except ValidationError as error:
        raise SearchError(f"{origin}: {first_line(error)}") from None
    for one in space.parameters:
        for value in one.values if isinstance(one, Choice) else (one.low, one.high):
            try:
                space.configure(base, {one.name: value})
            except ConfigurationError as error:
                raise SearchError(f"{origin}: {one.name}: {str(error).removeprefix('configuration: ')}") from None
    return space


def with_fixed(base: RunConfig, fixed: Iterable[Fixed], origin: str) -> RunConfig:
    """The base with the fixed values in place.

    Raises:
        SearchError: with what the configuration says against one of them.
    """
    for one in sorted(fixed, key=lambda one: one.relative_to is not None):
        unit = look_up(base, one.relative_to) if one.relative_to else None
        try:
            base = base.with_values({one.path: one.value if unit is None else one.value * unit})
        except ConfigurationError as error:
            raise SearchError(f"{origin}: {one.name}: {str(error).removeprefix('configuration: ')}") from None
    return base


def has(config: RunConfig, path: str) -> bool:
    """Whether a configuration has a setting."""
    try:
        look_up(config, path)
    except SearchError:
        return False
    return True


def first_line(error: ValidationError) -> str:
    """What pydantic says first, without its own words around it."""
    return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
