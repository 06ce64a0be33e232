"""What a search has found, as plain numbers: the figures and the report draw from here and compute nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tune.parameters import AnyParameter
from tune.space import Space
from tune.trials import TrialRow

ENOUGH = 4
"""Finished trials below which importance and a surface would be invented rather than found."""

LOST = ("collapsed", "nan", "diverged")
"""Ends of a trial whose model is worth nothing."""


@dataclass(frozen=True)
class Point:
    """A trial that reached its last epoch."""

    number: int
    """Counted from 1, as in the tables."""
    values: Mapping[str, Any]
    """By parameter; one that did not apply is missing."""
    objectives: tuple[float, ...]


@dataclass(frozen=True)
class Importance:
    """How much of an objective's variance a parameter explains."""

    name: str
    share: float
    """Of the variance that single parameters explain, in [0, 1]."""
    trials: int
    """On which it rests: fewer than all where the parameter applies in some trials only."""


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


def finished_points(study: optuna.Study) -> list[Point]:
    """The trials of a study that were trained to the end, in their order."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [Point(trial.number + 1, trial.params, tuple(trial.values)) for trial in trials]


def signs(study: optuna.Study) -> tuple[float, ...]:
    """By objective: +1 where it is maximised, -1 where it is minimised."""
    return tuple(1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in study.directions)


def importances(study: optuna.Study, objective: int) -> list[Importance]:
    """FANOVA's importance of each parameter for an objective, the greatest first; empty with too few finished trials, or alike ones.

    A parameter that applies in some trials only is assessed within those, beside all that always apply.

    Args:
        study: of the search.
        objective: which one, counted from 0.
    """
    points = finished_points(study)
    if len(points) < ENOUGH or len({point.objectives[objective] for point in points}) == 1:
        return []
    always = set.intersection(*(set(point.values) for point in points))
    found = _fanova(study, sorted(always), objective, len(points))
    for name in sorted(set().union(*(point.values for point in points)) - always):
        having = sum(name in point.values for point in points)
        if having >= ENOUGH:
            found += [one for one in _fanova(study, [*sorted(always), name], objective, having) if one.name == name]
    return sorted(found, key=lambda one: -one.share)


def _fanova(study: optuna.Study, names: list[str], objective: int, trials: int) -> list[Importance]:
    try:
        shares = get_param_importances(
            study,
            evaluator=FanovaImportanceEvaluator(seed=0),
            params=names,
            target=lambda trial: trial.values[objective],
        )
    except ValueError:
        # The ranges changed within the study: a search was taken up with another space.
        return []
    return [Importance(name, float(share), trials) for name, share in shares.items() if np.isfinite(share)]


def front(scores: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points that no other one beats in every respect: the Pareto front.

    Args:
        scores: by point, of equal length; larger is better.
    """
    values = np.array(scores, dtype=float).reshape(len(scores), -1)
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
    ranked = [importances(study, number) for number in range(len(objectives))]
    return Findings(rows, space, objectives, signs(study), epochs, finished_points(study), ranked)


def _panel(
    x: str,
    y: str,
    numbers: list[int],
    places: list[tuple[float, float]],
    front: list[int],
    others: list[tuple[float, float]],
) -> Panel:
    return Panel(x, y, numbers, places, sorted(front, key=lambda position: places[position]), others)
