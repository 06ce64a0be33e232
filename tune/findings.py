"""What a search has found, as plain numbers: the figures and the report draw from here and compute nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import optuna
from optuna.study import StudyDirection

from tune.importance import Importance, importances
from tune.observer import TrialRow
from tune.parameters import AnyParameter
from tune.points import Point, finished_points
from tune.space import Space

LOST = ("collapsed", "nan", "diverged")
"""Ends of a trial whose model is worth nothing."""


@dataclass(frozen=True)
class Saved:
    """Epochs that were not trained, as shares of all trials trained to the end."""

    stopped: float
    """By the scheduler, which gave up on poor trials."""
    lost: float
    """Because a model had collapsed, diverged or become NaN."""
    other: float
    """By errors, and by trials that still run."""

    @property
    def total(self) -> float:
        """1 - (epochs trained) / (trials times epochs)."""
        return self.stopped + self.lost + self.other


def signs(study: optuna.Study) -> tuple[float, ...]:
    """By objective: +1 where it is maximised, -1 where it is minimised."""
    return tuple(1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in study.directions)


def front(scores: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points that no other one beats in every respect: the Pareto front.

    Args:
        scores: by point, of equal length; larger is better.
    """
    values = np.array(scores, dtype=float)
    beaten = [bool(((values >= one).all(axis=1) & (values > one).any(axis=1)).any()) for one in values]
    return [position for position, loses in enumerate(beaten) if not loses]


def saved(rows: Sequence[TrialRow], epochs: int) -> Saved:
    """How much of the epochs of all trials was not trained, and why.

    Args:
        rows: all trials.
        epochs: of a trial that is trained to the end.
    """
    shares = {"stopped": 0.0, "lost": 0.0, "other": 0.0}
    for row in rows:
        kind = "stopped" if row.status == "stopped" else "lost" if row.status in LOST else "other"
        shares[kind] += max(0, epochs - row.epoch) / (epochs * len(rows))
    return Saved(**shares)


@dataclass(frozen=True)
class Panel:
    """Trials in a plane of two scores."""

    x: str
    y: str
    numbers: list[int]
    """Of the finished trials."""
    places: list[tuple[float, float]]
    """Of the finished trials, as (x, y)."""
    front: list[int]
    """Positions of those that no other one beats, along x."""
    others: list[tuple[float, float]]
    """Of trials that were stopped: their last scores, for comparison."""


@dataclass(frozen=True)
class Findings:
    """A search as its figures show it."""

    rows: Sequence[TrialRow]
    space: Space
    objectives: Sequence[str]
    """Names; the first one leads."""
    signs: tuple[float, ...]
    """By objective; see `signs`."""
    epochs: int
    """Of a trial that is trained to the end."""
    points: list[Point]
    ranked: list[list[Importance]]
    """By objective."""

    @property
    def leaders(self) -> list[AnyParameter]:
        """The two parameters that matter most to the first objective, or as many as there are."""
        by_name = {parameter.name: parameter for parameter in self.space.parameters}
        return [by_name[one.name] for one in self.ranked[0] if one.name in by_name][:2]

    @property
    def best(self) -> Point | None:
        """The best finished trial in the first objective."""
        return max(self.points, key=lambda point: self.signs[0] * point.objectives[0], default=None)

    def last_values(self) -> list[float | None]:
        """By row: the first objective where the trial ended; None where it was never validated."""
        finished = {point.number: point.objectives[0] for point in self.points}
        return [finished.get(row.number, row.curve[-1] if row.curve else None) for row in self.rows]

    def panels(self) -> list[Panel]:
        """The front: of every two objectives, or of R@1 and ARS where there is one objective."""
        if len(self.objectives) == 1:
            rows = [row for row in self.rows if row.status == "finished"]
            places = [(row.scores["R@1"], row.scores["ARS"]) for row in rows]
            others = [(row.scores["R@1"], row.scores["ARS"]) for row in self.rows if row.status == "stopped"]
            return [_panel("R@1", "ARS", [row.number for row in rows], places, front(places), others)]
        best = front(
            [[sign * value for sign, value in zip(self.signs, p.objectives, strict=True)] for p in self.points]
        )
        numbers = [point.number for point in self.points]
        return [
            _panel(
                self.objectives[x],
                self.objectives[y],
                numbers,
                [(point.objectives[x], point.objectives[y]) for point in self.points],
                best,
                [],
            )
            for x, y in combinations(range(len(self.objectives)), 2)
        ]


def findings_of(
    study: optuna.Study, rows: Sequence[TrialRow], space: Space, objectives: Sequence[str], epochs: int
) -> Findings:
    """Gather what a search has found; see `Findings`."""
    points = finished_points(study)
    ranked = [importances(points, space, number) for number in range(len(objectives))]
    return Findings(rows, space, objectives, signs(study), epochs, points, ranked)


def _panel(
    x: str,
    y: str,
    numbers: list[int],
    places: list[tuple[float, float]],
    front: list[int],
    others: list[tuple[float, float]],
) -> Panel:
    return Panel(x, y, numbers, places, sorted(front, key=lambda position: places[position]), others)
