"""One record per trial, from its own process to the study, MLflow and the report; and how trials are ranked."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.training.records import EpochRecord
from colotride.tune.parameters import Values

SHOWN_SCORES = ("R@1", "mAP", "ERS", "ARS")
"""Scores that every trial reports, in percent."""

LOST = ("collapsed", "nan", "diverged")
"""Statuses of a trial whose model cannot be used."""

OUT_OF_MEMORY = "out-of-memory"
MILLION = 1e6


class CostLimit:
    """Ends a training before it would take more image passes than it may.

    Attributes:
        spent: whether the next validated epoch would cost too much.
    """

    def __init__(self, limit: float | None, every: int) -> None:
        """Count nothing yet.

        Args:
            limit: millions of image passes; None for as many as the epochs take.
            every: epochs between two validations, the only ones after which a training ends.
        """
        self._limit, self._every, self._cost, self.spent = limit, every, 0.0, False

    @property
    def reason(self) -> str:
        """Why a training ended early."""
        return f"its cost of {self._limit:g} M passes is spent"

    def add(self, done: EpochRecord) -> None:
        """Count an epoch, also one that a former process trained."""
        cost = done.passes / MILLION
        self._cost += cost
        if self._limit is not None and done.epoch % self._every == 0:
            self.spent = self._cost + self._every * cost > self._limit


@dataclass(frozen=True)
class TrialRecord:
    """One trial: what it tries, what its epochs showed, and how it ended."""

    number: int
    """Counted from 1, in the order in which the trials were drawn."""
    values: Values
    config: RunConfig
    """Of the run that has these values."""
    status: str = "running"
    """running, finished, stopped (early, by comparison), collapsed, nan, diverged, out-of-memory or error."""
    reason: str = ""
    """Why a trial did not finish."""
    history: tuple[EpochRecord, ...] = ()
    """The epochs that it has reported."""

    @property
    def epoch(self) -> int:
        """Epochs trained; 0 before the first report."""
        return self.history[-1].epoch if self.history else 0

    @property
    def scores(self) -> dict[str, float]:
        """Validation scores in percent: means over the newest validations, see `ValidationSettings.average_over`.

        They are 0 for a lost model, which retrieves nothing.
        """
        if not self.history:
            return {}
        if not self.history[-1].validation:
            return dict.fromkeys(SHOWN_SCORES, 0.0)
        newest = [one.validation for one in self.history if one.validation][-self.config.validation.average_over :]
        return {name: sum(one.get(name, 0.0) for one in newest) / len(newest) for name in SHOWN_SCORES}

    @property
    def costs(self) -> list[float]:
        """Millions of image passes up to each epoch; a pass inside a perturbation includes its backward pass."""
        return list(accumulate(record.passes / MILLION for record in self.history))

    @property
    def cost(self) -> float:
        """Millions of image passes of the whole trial."""
        return self.costs[-1] if self.history else 0.0

    @property
    def seconds(self) -> float:
        """Wall time of training and validation, without start-up."""
        return sum((record.seconds for record in self.history), 0.0)

    def curve(self, score: str) -> dict[int, float]:
        """A score by epoch, in percent, where the trial was validated."""
        return {one.epoch: one.validation[score] for one in self.history if score in one.validation}

    def with_end(self, status: str, reason: str = "") -> "TrialRecord":
        """The same trial with another status."""
        return dataclasses.replace(self, status=status, reason=reason)

    def plain(self) -> dict[str, Any]:
        """The record as plain values for JSON; the configuration follows from the values."""
        return {
            "number": self.number,
            "values": self.values,
            "status": self.status,
            "reason": self.reason,
            "epoch": self.epoch,
            "scores": self.scores,
            "cost": self.cost,
            "seconds": self.seconds,
            "curves": {name: self.curve(name) for name in SHOWN_SCORES},
        }


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether no number is smaller and at least one is larger."""
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def pareto_front(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """The finished trials that no other finished one dominates, in the order of their numbers."""
    finished = [record for record in records if record.status == "finished"]
    points = [[record.scores[name] for name in objectives] for record in finished]
    return [
        record
        for record, point in zip(finished, points, strict=True)
        if not any(dominates(other, point) for other in points)
    ]


class NoFinishedTrialError(SearchError):
    """No trial of a search reached its last epoch.

    Attributes:
        records: of its trials.
    """

    def __init__(self, message: str, records: Sequence[TrialRecord]) -> None:
        super().__init__(message)
        self.records = list(records)


def best_first(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """The finished trials from the best to the worst.

    With several objectives those of the Pareto front come first. Within the front, and within the rest, the order is
    that of the sum of the objectives, each rescaled from its worst (0) to its best (1) finished value.

    Raises:
        NoFinishedTrialError: no trial finished; the message says how the trials ended.
    """
    finished = [record for record in records if record.status == "finished"]
    if not finished:
        ends = ", ".join(sorted({f"{one.status} ({one.reason})" if one.reason else one.status for one in records}))
        raise NoFinishedTrialError(
            f"none of the {len(records)} trials reached its last epoch: {ends or 'none was started'}; "
            "narrow the ranges with --space, or see what the trials' folders say",
            records,
        )
    scores = {name: [record.scores[name] for record in finished] for name in objectives}
    bounds: Mapping[str, tuple[float, float]] = {name: (min(column), max(column)) for name, column in scores.items()}

    def level(record: TrialRecord) -> float:
        return sum((record.scores[name] - low) / (high - low or 1.0) for name, (low, high) in bounds.items())

    front = {record.number for record in pareto_front(finished, objectives)}
    return sorted(finished, key=lambda record: (record.number not in front, -level(record), record.number))
