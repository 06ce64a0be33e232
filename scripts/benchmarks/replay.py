"""Searches replayed on a measured table: hundreds of repetitions per method, in milliseconds each.

The search's own study draws, judges and stops the trials; only their training is read instead of done. A trial gets the
numbers of the table's configuration that is nearest to the values that the sampler drew, with a seed drawn for it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.storages import InMemoryStorage

from colotride.training.records import EpochRecord
from colotride.tune.parameters import Choice, Values
from colotride.tune.plan import SearchPlan
from colotride.tune.records import LOST, TrialRecord
from colotride.tune.study import SearchStudy
from scripts.benchmarks.table import TEST, VALIDATION

SCORE = "ARS"
"""What is searched for."""


@dataclass(frozen=True)
class Runs:
    """All runs of one configuration: what a trial would have seen, by seed."""

    number: int
    curves: list[list[EpochRecord]]
    statuses: list[str]
    validation: float
    """Mean over the seeds of the last epoch's score, in percent."""
    test: float


class MeasuredSpace:
    """The configurations of a table within the space that is searched by default, and which of them is nearest."""

    def __init__(self, table: pd.DataFrame, plan: SearchPlan) -> None:
        """Read the table's runs.

        Args:
            table: see `table.load_table`.
            plan: says which parameters there are and how they are scaled.
        """
        self._parameters = plan.space.parameters
        part = table[table["space"] == "default"]
        self.runs: list[Runs] = []
        points = []
        for number, rows in part.groupby("configuration"):
            by_seed = [one for _, one in rows.groupby("seed")]
            last = rows.groupby("seed").tail(1)
            points.append(self._point(rows.iloc[0].dropna().to_dict()))
            self.runs.append(
                Runs(
                    int(number),
                    [_curve(one) for one in by_seed],
                    [str(one["status"].iloc[0]) for one in by_seed],
                    float(last[VALIDATION + SCORE].mean()),
                    float(last[TEST + SCORE].mean()),
                )
            )
        self._points = np.stack(points)

    @property
    def default(self) -> Runs:
        """Of the default configuration."""
        return self.runs[0]

    @property
    def best(self) -> float:
        """The highest mean validation score of a configuration."""
        return max(one.validation for one in self.runs)

    def nearest(self, values: Values) -> Runs:
        """The runs of the configuration nearest to any values: Euclidean, on the scales on which they are drawn."""
        point = self._point(values)
        difference = np.abs(self._points - point)
        # A parameter that only one of both has, and a different choice, are as far apart as the ends of a range.
        distance = np.where(np.isnan(difference), np.isnan(self._points) != np.isnan(point), difference)
        return self.runs[int(np.argmin((distance**2).sum(axis=1)))]

    def _point(self, values: Mapping[str, Any]) -> np.ndarray:
        """Values on their scales: [0, 1] for ranges, one number per choice, NaN where a parameter does not apply."""
        numbers: list[float] = []
        for one in self._parameters:
            value = values.get(one.name)
            if isinstance(one, Choice):
                # Half of the squared distance comes from each of the two choices that differ.
                numbers += [float(value == choice) / 2**0.5 for choice in one.values]
            elif value is None:
                numbers.append(np.nan)
            elif one.log:
                numbers.append(float(np.log(float(value) / one.low) / np.log(one.high / one.low)))
            else:
                numbers.append((float(value) - one.low) / (one.high - one.low))
        return np.array(numbers)


@dataclass(frozen=True)
class Replay:
    """One replayed search: what it had found after each finished trial."""

    epochs: list[int]
    """Epochs trained over all trials."""
    best: list[Runs]
    """The configuration that was best so far, by the score that its trial saw."""


def replay(space: MeasuredSpace, plan: SearchPlan, rng: np.random.Generator, at_once: int = 2) -> Replay:
    """Search once.

    Args:
        space: what was measured.
        plan: of the search; its seed is that of the sampler.
        rng: draws the seed of each trial.
        at_once: trials side by side; all epochs take equally long.
    """
    study = SearchStudy(Path("replay"), plan, InMemoryStorage())
    running: list[tuple[int, Runs, int]] = []
    epochs, best, highest, trained = list[int](), list[Runs](), -np.inf, 0
    while True:
        while len(running) < at_once and (record := study.draw()) is not None:
            runs = space.nearest(record.values)
            running.append((record.number, runs, int(rng.integers(len(runs.curves)))))
        if not running:
            return Replay(epochs, best)
        still = []
        for number, runs, seed in running:
            record = _trained(study.record(number), runs, seed)
            trained += 1
            if not study.report(record) and record.status == "running":
                still.append((number, runs, seed))
                continue
            study.settle(number)
            record = study.record(number)
            if record.status == "finished" and record.scores[SCORE] > highest:
                highest = record.scores[SCORE]
                epochs.append(trained)
                best.append(runs)
        running = still


def _trained(record: TrialRecord, runs: Runs, seed: int) -> TrialRecord:
    """A trial's record after one more epoch."""
    curve = runs.curves[seed]
    epoch = record.epoch + 1
    record = dataclasses.replace(record, history=tuple(curve[:epoch]))
    return record.with_end(runs.statuses[seed]) if epoch == len(curve) else record


def _curve(rows: pd.DataFrame) -> list[EpochRecord]:
    lost = rows["status"].iloc[0] in LOST
    found = []
    for row in rows.to_dict("records"):
        scores = {name.removeprefix(VALIDATION): row[name] for name in row if name.startswith(VALIDATION)}
        kept = {} if lost and row["epoch"] == rows["epoch"].max() else scores
        found.append(EpochRecord(int(row["epoch"]), int(row["epoch"]), row["seconds"], {}, kept, int(row["passes"])))
    return found
