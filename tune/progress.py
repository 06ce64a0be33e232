"""The display of a running search: a live table on a terminal, one line per ended trial elsewhere."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colotride.tune.parameters import Space, Values
from colotride.tune.plan import SearchPlan
from colotride.tune.records import TrialRecord

STYLES = {"finished": "green", "running": "cyan", "stopped": "dim", "collapsed": "yellow"}
ROWS = 20
"""Rows of the live table; more would not fit."""

COLUMNS = ("R@1", "ERS", "ARS")


class SearchProgress:
    """Shows every trial while it runs; a `TrialCallback`, and a context manager around the search."""

    def __init__(self, console: Console, plan: SearchPlan, records: Iterable[TrialRecord]) -> None:
        """Show a search.

        Args:
            console: where.
            plan: of the search.
            records: trials from before this session; those that were running continue.
        """
        self._console, self._plan = console, plan
        self._records = {record.number: record for record in records}
        self._before = self._epochs_done()
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "SearchProgress":
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, record: TrialRecord) -> None:
        """See `TrialCallback`."""
        self._records[record.number] = record

    def reported(self, record: TrialRecord) -> None:
        """See `TrialCallback`; the live table draws itself."""
        self._records[record.number] = record

    def ended(self, record: TrialRecord) -> None:
        """See `TrialCallback`."""
        self._records[record.number] = record
        if not self._console.is_terminal:
            scores = "  ".join(f"{name} {score_text(record, name)}" for name in record.scores)
            self._console.print(
                f"[{self._ended()}/{self._plan.trials}] trial {record.number} {record.status} at epoch {record.epoch}  "
                f"{scores}  {values_text(record.values)}",
                soft_wrap=True,
            )

    def _render(self) -> RenderableType:
        shown = list(self._records.values())[-ROWS:]
        return Group(trial_table(shown, self._plan.space, self._plan.objectives[0]), Text(self._status()))

    def _status(self) -> str:
        """How much is done, and how long the rest takes at the pace of the epochs so far."""
        done = self._epochs_done()
        # A search that is resumed may have more trials than are asked for now.
        missing = max(0, self._plan.trials * self._plan.epochs - done)
        elapsed, here = time.monotonic() - self._began, done - self._before
        left = f", about {elapsed * missing / here:.0f} s left" if here > max(0.0, 0.05 * missing) else ""
        return f"{self._ended()} of {self._plan.trials} trials ended, {elapsed:.0f} s{left}"

    def _ended(self) -> int:
        return sum(record.status != "running" for record in self._records.values())

    def _epochs_done(self) -> int:
        return sum(
            record.epoch if record.status == "running" else self._plan.epochs for record in self._records.values()
        )


def trial_table(records: Iterable[TrialRecord], space: Space, objective: str, title: str = "") -> Table:
    """Trials with their values, state and validation scores in percent; the best finished one is bold."""
    records = list(records)
    table = Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for label in ("#", *(parameter.label for parameter in space.parameters), "epoch", *COLUMNS):
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    best = max((one.scores.get(objective, 0.0) for one in records if one.status == "finished"), default=None)
    for record in records:
        leads = record.status == "finished" and record.scores.get(objective) == best
        table.add_row(
            str(record.number),
            *(value_text(record.values.get(parameter.name)) for parameter in space.parameters),
            str(record.epoch),
            *(score_text(record, name) for name in COLUMNS),
            Text(record.status, style=STYLES.get(record.status, "red")),
            style="bold" if leads else "",
        )
    return table


def score_text(record: TrialRecord, name: str) -> str:
    """A score in percent; in brackets where it was measured at an earlier epoch, with fewer queries."""
    if name not in record.scores:
        return ""
    text = f"{record.scores[name]:.1f}"
    return text if record.status == "finished" else f"({text})"


def values_text(values: Values) -> str:
    """The values of a trial in one line."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in values.items())


def value_text(value: Any) -> str:
    """One value, short; a dash where the parameter does not apply."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
