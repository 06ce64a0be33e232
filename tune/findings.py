"""What a search has found, as plain numbers: the figures and the report draw from here and compute nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import optuna

from colotride.tune.importance import Importance, importances
from colotride.tune.parameters import AnyParameter
from colotride.tune.points import Point, finished_points
from colotride.tune.space import Space
from colotride.tune.trials import TrialRow, best_first, pareto_front

LOST = ("collapsed", "nan", "diverged")
"""Ends of a trial whose model is worth nothing."""


@dataclass(frozen=True)
class Saved:
    """Epochs that were not trained, as shares of all trials trained to the end."""

    stopped: float
    """By the scheduler, which gave up on poor trials."""
    lost: float
    """Because a model had collapsed, diverged or become NaN."""
    spent: float
    """Because finished trials had spent the image passes that one was allowed."""
    other: float
    """By errors, and by trials that still run."""

    @property
    def total(self) -> float:
        """1 - (epochs trained) / (trials times epochs)."""
        return self.stopped + self.lost + self.spent + self.other


def saved(rows: Sequence[TrialRow], epochs: int) -> Saved:
    """How much of the epochs of all trials was not trained, and why.

    Args:
        rows: all trials.
        epochs: of a trial that is trained to the end.
    """
    shares = {"stopped": 0.0, "lost": 0.0, "spent": 0.0, "other": 0.0}
    kinds = {"stopped": "stopped", "finished": "spent", **dict.fromkeys(LOST, "lost")}
    for row in rows:
        shares[kinds.get(row.status, "other")] += max(0, epochs - row.epoch) / (epochs * len(rows))
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


@dataclass(frozen=True)
class Findings:
    """A search as its figures show it."""

    rows: Sequence[TrialRow]
    space: Space
    objectives: Sequence[str]
    """Names of scores, all maximised; the first one leads."""
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
    def best(self) -> TrialRow | None:
        """The best finished trial, as the search ranks them."""
        finished = [row for row in self.rows if row.status == "finished"]
        return best_first(finished, self.objectives)[0] if finished else None

    def last_values(self) -> list[float | None]:
        """By row: the first objective of a finished trial; None of others.

        What a stopped trial had reached was measured with the smaller budget of its epoch, against which a model looks
        more robust than it is.
        """
        finished = {point.number: point.objectives[0] for point in self.points}
        return [finished.get(row.number) for row in self.rows]

    def floor(self) -> float:
        """Where trials without a value stand in a plot of values: below all of them."""
        values = [value for value in self.last_values() if value is not None]
        low, high = min(values, default=0.0), max(values, default=1.0)
        return low - 0.08 * ((high - low) or 1.0)

    def panels(self) -> list[Panel]:
        """The front: of every two objectives, or of R@1 and ARS where there is one objective."""
        names = self.objectives if len(self.objectives) > 1 else ("R@1", "ARS")
        finished = [row for row in self.rows if row.status == "finished"]
        front = {row.number for row in pareto_front(finished, names)}
        return [_panel(x, y, finished, front) for x, y in combinations(names, 2)]


def findings_of(
    study: optuna.Study, rows: Sequence[TrialRow], space: Space, objectives: Sequence[str], epochs: int
) -> Findings:
    """Gather what a search has found; see `Findings`."""
    points = finished_points(study)
    ranked = [importances(points, space, number) for number in range(len(objectives))]
    return Findings(rows, space, objectives, epochs, points, ranked)


def _panel(x: str, y: str, finished: Sequence[TrialRow], front: Collection[int]) -> Panel:
    places = [(row.scores[x], row.scores[y]) for row in finished]
    best = [position for position, row in enumerate(finished) if row.number in front]
    return Panel(
        x=x,
        y=y,
        numbers=[row.number for row in finished],
        places=places,
        front=sorted(best, key=lambda position: places[position]),
    )
