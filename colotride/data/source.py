"""What a data set offers before anything is held out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colotride.data.base import ImageSet
from colotride.errors import DataError

STORES = ".colotride"
"""Folder in a data root where image stores lie; it is no part of any set."""


@dataclass(frozen=True)
class Source:
    """A data set's two sides, read when asked for, so that training never touches the test side."""

    train: Callable[[], ImageSet]
    test: Callable[[], ImageSet]
    zero_shot: bool
    """Whether the test classes are other classes than the training ones."""


def missing(name: str, path: Path, remedy: str) -> DataError:
    """The error for a data set that is not there: where it was looked for, and how to get it."""
    return DataError(f"{name} is not at {path.absolute()}; {remedy}, and name the folder above it with --data-root")
