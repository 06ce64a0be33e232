"""Registries: defenses, attacks, miners, losses and data sets by name, ColoTride's own and the user's.

A new one is a new file with one decorator. Our own files are named in the package that holds them; a user's module is
named with `--plugin my_module`, or under `plugins` in a configuration, which also reaches worker processes.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from colotride.errors import ConfigurationError
from colotride.names import check_name

T = TypeVar("T")
Member = TypeVar("Member")


class Registry(Generic[T]):
    """Objects of one kind by name, in the order in which they were registered."""

    def __init__(self, kind: str, home: str) -> None:
        """Make an empty registry.

        Args:
            kind: what is registered, for messages ("defense").
            home: the module that registers ColoTride's own members when it is imported; it is imported when the
                registry is first asked for something.
        """
        self._kind, self._home = kind, home
        self._members: dict[str, T] = {}

    def register(self, name: str, member: T) -> None:
        """Add a member.

        Raises:
            ConfigurationError: another member has this name already, or it cannot be a name.
        """
        try:
            check_name(name)
        except ValueError as error:
            raise ConfigurationError(f"name {name!r} of a {self._kind} {error}") from None
        former = self._members.get(name)
        if former is not None and _origin(former) != _origin(member):
            raise ConfigurationError(
                f"{self._kind} {name!r} is registered already, by {_origin(former)}; choose another name"
            )
        self._members[name] = member

    def __getitem__(self, name: str) -> T:
        """The member of this name.

        Raises:
            ConfigurationError: no such member; the message lists the nearest names first.
        """
        if name not in self._known():
            raise ConfigurationError(self._unknown(name))
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def items(self) -> list[tuple[str, T]]:
        """Names and members."""
        return list(self._known().items())

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._known())

    def check(self, name: str) -> str:
        """The name itself, for a field of a configuration.

        Raises:
            ValueError: no such member.
        """
        if name not in self._known():
            raise ValueError(self._unknown(name))
        return name

    def _known(self) -> dict[str, T]:
        importlib.import_module(self._home)
        return self._members

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(str(name), self._members, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"no {self._kind} {name!r}{meant}; there are {', '.join(self._members)}"


@dataclass(frozen=True)
class Miner:
    """How the images of a triplet are chosen from a batch."""

    negatives: Callable[..., Any]
    """Takes `mining.Candidates`; returns which of them qualify and an order in which the first is taken."""
    positives: Callable[..., Any] | None = None
    """The same for the positives; None takes the partner of each pair."""


@dataclass(frozen=True)
class DatasetReader:
    """How a data set is read, and how one trains on it."""

    read: Callable[..., Any]
    """Takes the data root and the stored size; returns a `data.base.Source`."""
    recommended: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted path, on top of those for photographs."""
    bundled: bool = False
    """Whether the images come with an installed package, so that the data root does not matter."""
    fixed_size: bool = False
    """Whether the images have a size of their own, instead of being resized to the stored size."""


DEFENSES: Registry[Any] = Registry("defense", "colotride.defenses")
"""Classes of defenses."""
ATTACKS: Registry[Any] = Registry("attack", "colotride.evaluation.attacks")
"""Attacks of an evaluation."""
MINERS: Registry[Miner] = Registry("miner", "colotride.mining")
LOSSES: Registry[Callable[..., Any]] = Registry("loss", "colotride.losses")
"""Functions of a `losses.LossBatch`."""
DATASETS: Registry[DatasetReader] = Registry("data set", "colotride.data.splits")


def register_defense(name: str) -> Callable[[Member], Member]:
    """Register a class of defenses under the name that configurations give.

    The class is a `colotride.defenses.TripletDefense`, or has its constructor and its `batch_loss`. Its attribute
    `Settings` is a `DefenseSettings` whose field `name` is `Literal[name]`.

    Raises:
        ConfigurationError: the name is taken, or `Settings` is missing or names another defense.
    """

    def register(member: Member) -> Member:
        settings = getattr(member, "Settings", None)
        given = getattr(settings, "model_fields", {}).get("name")
        if given is None or given.default != name:
            raise ConfigurationError(
                f"defense {name!r} ({_origin(member)}) needs an attribute Settings: a subclass of DefenseSettings "
                f'with the field `name: Literal["{name}"] = "{name}"`'
            )
        DEFENSES.register(name, member)
        return member

    return register


def register_attack(name: str) -> Callable[[Member], Member]:
    """Register an attack of the evaluation; see `colotride.evaluation.attacks` for what it has to be.

    Raises:
        ConfigurationError: the name is taken.
    """

    def register(member: Member) -> Member:
        ATTACKS.register(name, member)
        return member

    return register


def register_miner(name: str, *, positives: Callable[..., Any] | None = None) -> Callable[[Member], Member]:
    """Register a function that orders the candidates for the negatives of a batch; see `mining.Preference`.

    Args:
        name: for `training.miner`.
        positives: a second function of this kind, for the positives; None takes the partner of each pair.

    Raises:
        ConfigurationError: the name is taken.
    """

    def register(member: Member) -> Member:
        MINERS.register(name, Miner(member, positives))  # type: ignore[arg-type]
        return member

    return register


def register_loss(name: str) -> Callable[[Member], Member]:
    """Register a base loss: a function that turns a `losses.LossBatch` into a scalar with its graph.

    Raises:
        ConfigurationError: the name is taken.
    """

    def register(member: Member) -> Member:
        LOSSES.register(name, member)  # type: ignore[arg-type]
        return member

    return register


def register_dataset(
    name: str,
    *,
    recommended: Mapping[str, Any] | None = None,
    bundled: bool = False,
    fixed_size: bool = False,
) -> Callable[[Member], Member]:
    """Register a function that reads a data set: it takes the data root and the stored size, and returns a `Source`.

    Args:
        name: for `data.name`, `--dataset` and `ct.train(name)`.
        recommended: settings by dotted path ("data.stored_size") with which one trains on it, on top of those for
            photographs.
        bundled: whether the images come with an installed package, so that the data root does not matter.
        fixed_size: whether the images have a size of their own, instead of being resized to `data.stored_size`.

    Raises:
        ConfigurationError: the name is taken.
    """

    def register(member: Member) -> Member:
        DATASETS.register(name, DatasetReader(member, recommended or {}, bundled, fixed_size))  # type: ignore[arg-type]
        return member

    return register


def load_plugin(module: str) -> str:
    """Import a user's module, looked for in the working directory too, so that what it registers is known.

    Returns:
        The name of the module.

    Raises:
        ConfigurationError: it cannot be imported, in one line with its own reason.
    """
    try:
        with modules_of_working_directory():
            importlib.import_module(module)
    except ConfigurationError:
        raise
    except Exception as error:
        # The user's code may raise anything, and its own message helps most.
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigurationError(
            f"plugin {module!r} cannot be imported ({type(error).__name__}: {reason}); name a Python module that is "
            "installed or lies in the working directory"
        ) from error
    return module


@contextmanager
def modules_of_working_directory() -> Iterator[None]:
    """Let modules that lie in the working directory be imported inside the block."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _origin(member: object) -> str:
    """Where a member was defined; a module that is reloaded may register its members again."""
    inner = getattr(member, "negatives", None) or getattr(member, "read", None) or member
    return f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
