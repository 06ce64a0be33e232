"""What happens in a search, told to whoever listens: the display, MLflow, the table on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial

from tune.space import Values


@dataclass
class TrialRow:
    """One trial as it stands."""

    number: int
    """Counted from 1, in the order of their starts."""
    values: Values
    status: str = "running"
    """running, finished, stopped (by the scheduler), collapsed, nan, diverged or error."""
    epoch: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    """Validation scores of the last reported epoch: R@1, ERS, ARS."""
    curve: list[float] = field(default_factory=list)
    """The objective at every reported epoch."""
    seconds: float = 0.0
    reason: str = ""
    """Why a trial did not finish."""


class Listener(Protocol):
    """Told of everything that happens to a trial, in the driver's process."""

    def started(self, row: TrialRow) -> None:
        """Begin a trial."""

    def reported(self, row: TrialRow, result: dict[str, Any]) -> None:
        """Take the report of one epoch."""

    def ended(self, row: TrialRow) -> None:
        """Close a trial; its status says how it ended."""


class Observer(Callback):
    """Keeps one row per trial and tells the listeners.

    Attributes:
        rows: by Ray's trial id, in the order of their starts.
    """

    def __init__(self, listeners: Sequence[Listener], objective: str) -> None:
        self.rows: dict[str, TrialRow] = {}
        self._listeners, self._objective = listeners, objective

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps its callbacks with the experiment; terminals and database connections do not survive that.
        return {**self.__dict__, "_listeners": ()}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        if trial.trial_id in self.rows:
            return
        row = TrialRow(number=len(self.rows) + 1, values=dict(trial.config))
        self.rows[trial.trial_id] = row
        for listener in self._listeners:
            listener.started(row)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """See `ray.tune.Callback`."""
        row = self.rows[trial.trial_id]
        row.epoch, row.status, row.reason = result["epoch"], result["status"], result["reason"]
        row.scores = {name: result[name] for name in ("R@1", "ERS", "ARS")}
        row.curve.append(result[self._objective])
        row.seconds += result["seconds"]
        for listener in self._listeners:
            listener.reported(row, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        row = self.rows[trial.trial_id]
        if row.status == "running":
            row.status = "stopped"
        self._end(row)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        row = self.rows[trial.trial_id]
        row.status = "error"
        trace = str(trial.get_error() or "").strip().splitlines()
        row.reason = trace[-1] if trace else "see error.txt in the trial's folder"
        self._end(row)

    def _end(self, row: TrialRow) -> None:
        for listener in self._listeners:
            listener.ended(row)
