"""Messages and progress bars on standard error while data is prepared."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from colotride.terminal import Terminal

DELAY = 1.0
"""Seconds of work before a progress bar appears."""


def notify(line: str) -> None:
    """Print one line on standard error."""
    Terminal(stderr=True).print(line, soft_wrap=True)


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, or one line where that is no terminal; work shorter than `DELAY` shows neither.

    Args:
        what: the work, such as "decoding cub/train".
        total: number of units.
        unit: its name in the plural.
        done: units that were done earlier.

    Yields:
        A function that takes the number of units done since its last call.
    """
    console, start = Terminal(stderr=True), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task, shown = bar.add_task(what, total=total, completed=done), False

    def advance(count: int) -> None:
        nonlocal shown
        bar.update(task, advance=count)
        # Work that has just ended needs no bar.
        if not shown and not bar.finished and time.monotonic() - start > DELAY:
            shown = True
            if console.is_terminal:
                bar.start()
            else:
                notify(f"{what}: {total:,} {unit}")

    try:
        yield advance
    finally:
        if shown and console.is_terminal:
            bar.stop()
