"""Conditions between parameters, held against a run: what cannot mean anything is left out."""

from collections.abc import Collection, Sequence

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.tune.parameters import Above, AnyParameter, Choice, Condition, extent, holds
from colotride.tune.space import look_up


def settle(
    parameters: Sequence[AnyParameter], base: RunConfig, named: Collection[str], origin: str
) -> list[AnyParameter]:
    """Order parameters so that each follows those on which it depends, and leave out those that mean nothing.

    A condition on a setting that is varied becomes one on that parameter's name; one on a setting that is not varied
    is held against the base: it is met for good, or the parameter goes.

    Args:
        parameters: with conditions by dotted path; a path that the base does not have restricts nothing.
        base: with all fixed values in place.
        named: names of parameters that the user asked for and that must therefore mean something.
        origin: for messages.

    Raises:
        SearchError: a parameter that the user named means nothing, or parameters depend on each other in a circle.
    """
    placed: list[AnyParameter] = []
    waiting = list(parameters)
    while waiting:
        held_up = {one.path for one in waiting}
        ready = next((one for one in waiting if not held_up & one.only_if.keys()), None)
        if ready is None:
            circle = ", ".join(one.name for one in waiting)
            raise SearchError(f"{origin}: {circle} wait for each other's values; take out an only_if")
        waiting.remove(ready)
        obstacle = _obstacle(ready, placed, base)
        if obstacle is None:
            placed.append(_linked(ready, placed))
        elif ready.name in named:
            raise SearchError(f"{origin}: {ready.name} means nothing here: {obstacle}; leave it out")
    return placed


def _obstacle(parameter: AnyParameter, placed: Sequence[AnyParameter], base: RunConfig) -> str | None:
    """Why a parameter can never mean anything, or None."""
    for path, condition in parameter.only_if.items():
        wanted = f"above {condition.above:g}" if isinstance(condition, Above) else " or ".join(map(str, condition))
        parent = next((one for one in placed if one.path == path), None)
        if parent is not None:
            if not _possible(parent, condition):
                return f"it needs {parent.name} {wanted}, which is {extent(parent)}"
            continue
        try:
            value = look_up(base, path)
        except SearchError:
            continue
        if not holds(condition, value):
            return f"it needs {path} {wanted}, which is {value}"
    return None


def _linked(parameter: AnyParameter, placed: Sequence[AnyParameter]) -> AnyParameter:
    parents = {one.path: one for one in placed}
    conditions = {
        parents[path].name: condition
        for path, condition in parameter.only_if.items()
        if path in parents and not _certain(parents[path], condition)
    }
    return parameter.model_copy(update={"only_if": conditions})


def _possible(parent: AnyParameter, condition: Condition) -> bool:
    if isinstance(parent, Choice):
        return any(holds(condition, value) for value in parent.values)
    if isinstance(condition, Above):
        return parent.high > condition.above
    return any(isinstance(value, int | float) and parent.low <= value <= parent.high for value in condition)


def _certain(parent: AnyParameter, condition: Condition) -> bool:
    """Whether a condition holds in every trial, so that nothing has to be asked."""
    if parent.only_if:
        return False
    if isinstance(parent, Choice):
        return all(holds(condition, value) for value in parent.values)
    return isinstance(condition, Above) and parent.low > condition.above
