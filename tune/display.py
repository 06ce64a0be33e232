"""What a person sees of a running search: a live table on a terminal, one line per ended trial elsewhere."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colotride.tune.plan import Plan
from colotride.tune.space import Space, Values
from colotride.tune.trials import TrialRow

STYLES = {"finished": "green", "running": "cyan", "stopped": "dim", "collapsed": "yellow"}
SHOWN = 20
"""Rows of the live table; the rest would not fit."""


class Display:
    """Shows every trial as it goes; use as a context manager around the search."""

    def __init__(self, console: Console, plan: Plan, rows: Iterable[TrialRow]) -> None:
        """Show a search.

        Args:
            console: where.
            plan: of the search.
            rows: trials of before this session; those that were running go on.
        """
        self._console, self._space, self._objective = console, plan.space, plan.objectives[0]
        self._trials, self._epochs = plan.trials, plan.epochs
        self._rows = {row.number: row for row in rows}
        self._before = sum(map(self._done, self._rows.values()))
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, row: TrialRow) -> None:
        """See `TrialCallback`."""
        self._rows[row.number] = row

    def reported(self, row: TrialRow, result: dict[str, Any]) -> None:
        """See `TrialCallback`; the live table draws itself."""

    def ended(self, row: TrialRow) -> None:
        """See `TrialCallback`."""
        if not self._console.is_terminal:
            done = sum(one.status != "running" for one in self._rows.values())
            scores = "  ".join(f"{name} {value:.1f}" for name, value in row.scores.items())
            self._console.print(
                f"[{done}/{self._trials}] trial {row.number} {row.status} at epoch {row.epoch}  {scores}  "
                f"{values_text(row.values)}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )

    def _render(self) -> RenderableType:
        return Group(
            trial_table(list(self._rows.values())[-SHOWN:], self._space, self._objective), Text(self._progress())
        )

    def _progress(self) -> str:
        """How much is done, and how long the rest takes if it goes on like the epochs so far."""
        done = sum(map(self._done, self._rows.values()))
        left_over = self._trials * self._epochs - done
        elapsed, here = time.monotonic() - self._began, done - self._before
        ended = sum(row.status != "running" for row in self._rows.values())
        left = f", about {elapsed * left_over / here:.0f} s left" if here > 0.05 * left_over else ""
        return f"{ended} of {self._trials} trials ended, {elapsed:.0f} s{left}"

    def _done(self, row: TrialRow) -> int:
        return row.epoch if row.status == "running" else self._epochs


def trial_table(rows: Iterable[TrialRow], space: Space, objective: str, title: str = "") -> Table:
    """Trials with their values, state and validation scores; the best objective is bold."""
    rows = list(rows)
    table = Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for label in ("#", *(parameter.label for parameter in space.parameters), "epoch", "R@1", "ERS", "ARS"):
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    best = max((row.scores.get(objective, 0.0) for row in rows if row.status == "finished"), default=None)
    for row in rows:
        leads = row.status == "finished" and row.scores.get(objective) == best
        scores = (_score(row, name) for name in ("R@1", "ERS", "ARS"))
        table.add_row(
            str(row.number),
            *(value_text(row.values.get(parameter.name)) for parameter in space.parameters),
            str(row.epoch),
            *scores,
            Text(row.status, style=STYLES.get(row.status, "red")),
            style="bold" if leads else "",
        )
    return table


def _score(row: TrialRow, name: str) -> str:
    """A score; in brackets where it was measured at an earlier epoch, with a smaller budget than those at the end."""
    if name not in row.scores:
        return ""
    return f"{row.scores[name]:.1f}" if row.status == "finished" else f"({row.scores[name]:.1f})"


def values_text(values: Values) -> str:
    """The values of a trial in one line."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in values.items())


def value_text(value: Any) -> str:
    """One value, short; nothing where the parameter does not apply."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return str(value)
