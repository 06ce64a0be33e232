"""What is said on standard error while data is being prepared."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 1.0
"""Seconds of work that nobody is told about."""


def say(line: str) -> None:
    """One line on standard error."""
    Console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar on standard error once patience is over; where that is no terminal, one line.

    Args:
        what: is being done.
        total: how many units it takes.
        unit: of what, in the plural.
        done: how many were done before.

    Yields:
        A function to be called with how many more are done.
    """
    console, start = Console(stderr=True), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task, shown = bar.add_task(what, total=total, completed=done), False

    def advance(count: int) -> None:
        nonlocal shown
        bar.update(task, advance=count)
        if not shown and time.monotonic() - start > PATIENCE:
            shown = True
            if console.is_terminal:
                bar.start()
            else:
                say(f"{what}: {total:,} {unit}")

    try:
        yield advance
    finally:
        if shown and console.is_terminal:
            bar.stop()
