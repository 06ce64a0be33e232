"""Ways to search, compared on a measured table: tables, pictures, and how much of a budget each of them needs."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from colotride.io import save_figure
from scripts.benchmarks.replay import METHODS, MeasuredSpace, Replay, plan_of, replay
from scripts.benchmarks.surrogate import ForestSpace
from scripts.benchmarks.table import usual_seeds

RESAMPLES = 300
"""Bootstrap resamples behind the interval of a share."""

PICTURED = ("random, last validation", "random", "TPE", "TPE, ASHA by thirds", "TPE, ASHA")
"""Methods whose courses are drawn."""

REFERENCES = ("random", "random, last validation")
"""Methods with whose finds the others are compared: random search, judged as all are and as it used to be."""

SPACES = ("default", "all")
"""The spaces on which searches are replayed."""


@dataclass(frozen=True)
class MethodRow:
    """What one method's replayed searches found on one space, at one budget; means with 95 % intervals."""

    space: str
    method: str
    budget: int
    """Whole trials whose epochs all searches of the row were allowed."""
    searches: int
    trials: float
    validation: float
    """Mean validation score of the winners over the seeds."""
    regret: float
    """How much lower that is than the best configuration's of the table."""
    regret_interval: tuple[float, float]
    test_regret: float
    """The same of the test score, of which a search sees nothing."""
    gain: float
    """Test score of the winners above the default's, in points."""
    gain_interval: tuple[float, float]
    retrieval: float
    """The same of R@1."""
    better: float
    """Share of the winners that score higher than the default on the test classes, in [0, 1]."""
    better_interval: tuple[float, float]
    by_chance: float
    """The same share of all configurations of the table: what a search finds that draws one and trains nothing."""


@dataclass(frozen=True)
class Courses:
    """The searches of one method on one space: what was best so far, race left out."""

    space: str
    method: str
    epochs: np.ndarray
    """Epochs trained over all trials."""
    validation: np.ndarray
    """Mean validation score over the seeds of what was best at these epochs: a row per search."""

    @property
    def mean(self) -> np.ndarray:
        """Over the searches."""
        return self.validation.mean(axis=0)

    @property
    def half(self) -> np.ndarray:
        """Half of the 95 % interval of the mean."""
        return 1.96 * self.validation.std(axis=0, ddof=1) / len(self.validation) ** 0.5


@dataclass(frozen=True)
class ShareOfBudget:
    """After which share of its budget a method had found what another one found with the whole; 95 % interval.

    Infinite where it never found as much.
    """

    share: float
    low: float
    high: float


def replay_all(
    table: pd.DataFrame,
    dataset: str,
    budgets: Sequence[int],
    repetitions: int,
    *,
    methods: Sequence[str] = tuple(METHODS),
    surrogate: bool = False,
    processes: int = 1,
    on_run: Callable[[str], None] = lambda _: None,
) -> tuple[list[MethodRow], list[Courses]]:
    """Replay every method on every space at every budget.

    Args:
        table: measured runs; configurations that lack a seed are left out.
        dataset: the table's.
        budgets: whole trials whose epochs a search may train.
        repetitions: searches per row; a tenth of it for slow samplers.
        methods: names of those to replay.
        surrogate: search on a forest that is fitted to the table, instead of on its configurations alone.
        processes: searches side by side.
        on_run: called with a line about how far it is.
    """
    table = complete(table)
    tasks = [(space, method, budget) for space in SPACES for method in methods for budget in budgets]
    rows: list[MethodRow] = []
    courses: list[Courses] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_replays, table, dataset, *task, _count(task[1], repetitions), surrogate) for task in tasks]
        try:
            for (space, method, budget), job in zip(tasks, jobs, strict=True):
                measured, replays = job.result()
                on_run(f"{method} on {space}, {budget} trials")
                rows.append(_row(measured, space, method, budget, replays))
                if budget == max(budgets):
                    courses.append(_courses(space, method, replays))
        except BaseException:
            # What has not begun is not begun any more.
            pool.shutdown(cancel_futures=True)
            raise
    return rows, courses


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The configurations that were measured with at least as many seeds as most are."""
    seeds = table.groupby("configuration")["seed"].nunique()
    return table[table["configuration"].isin(seeds[seeds >= usual_seeds(table)].index)]


def share_of_budget(courses: Sequence[Courses], reference: str, method: str, space: str) -> ShareOfBudget:
    """How much of its budget a method needs for what another one finds with the whole of it.

    Args:
        courses: of `replay_all`.
        reference: name of the other method.
        method: name of the method.
        space: on which both searched.
    """
    named = {(one.space, one.method): one for one in courses}
    other, own = named[space, reference], named[space, method]
    rng = np.random.default_rng(0)

    def share(goal: float, mean: np.ndarray) -> float:
        reached = np.flatnonzero(mean >= goal)
        return float(own.epochs[reached[0]] / own.epochs[-1]) if len(reached) else float("inf")

    drawn = [
        share(
            float(rng.choice(other.validation[:, -1], len(other.validation)).mean()),
            own.validation[rng.integers(len(own.validation), size=len(own.validation))].mean(axis=0),
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return ShareOfBudget(share(float(other.mean[-1]), own.mean), float(low), float(high))


def draw_replays(courses: Sequence[Courses], methods: Sequence[str], path: Path) -> None:
    """Draw what the searches had found against the epochs trained: means, and their 95 % intervals as bands."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, len(SPACES))
    for axis, space in zip(axes, SPACES, strict=True):
        for place, one in enumerate(course for course in courses if course.space == space and course.method in methods):
            low, high = one.mean - one.half, one.mean + one.half
            axis.plot(one.epochs, one.mean, color=f"C{place}", label=one.method)
            axis.fill_between(one.epochs, low, high, color=f"C{place}", alpha=0.15, linewidth=0)
        axis.set(
            xlabel="epochs trained over all trials",
            ylabel="validation ARS of the best so far, mean over seeds",
            title={"default": "default space", "all": "all groups"}[space],
        )
        axis.grid(alpha=0.3)
    axes[-1].legend(frameon=False)
    save_figure(figure, path)


def _count(method: str, repetitions: int) -> int:
    return max(2, repetitions // 10) if METHODS[method].slow else repetitions


def _replays(
    table: pd.DataFrame, dataset: str, space: str, name: str, budget: int, count: int, surrogate: bool
) -> tuple[MeasuredSpace, list[Replay]]:
    method = METHODS[name]
    first = plan_of(method, budget, space, dataset)
    measured = ForestSpace(table, first, space, dataset) if surrogate else MeasuredSpace(table, first, space)
    replays = []
    for number in range(count):
        plan = plan_of(method, budget, space, dataset, seed=number)
        replays.append(replay(measured, plan, method, measured.seeds[number % len(measured.seeds)]))
    return measured, replays


def _row(space: MeasuredSpace, name: str, method: str, budget: int, replays: Sequence[Replay]) -> MethodRow:
    gains = np.array([one.winner.test - space.default.test for one in replays])
    regrets = space.best - np.array([one.winner.validation for one in replays])
    better = int((gains > 0).sum())
    interval = stats.binomtest(better, len(gains)).proportion_ci(0.95, method="wilson")
    return MethodRow(
        space=name,
        method=method,
        budget=budget,
        searches=len(replays),
        trials=float(np.mean([one.trials for one in replays])),
        validation=space.best - float(regrets.mean()),
        regret=float(regrets.mean()),
        regret_interval=_interval(regrets),
        test_regret=max(one.test for one in space.runs) - space.default.test - float(gains.mean()),
        gain=float(gains.mean()),
        gain_interval=_interval(gains),
        retrieval=float(np.mean([one.winner.retrieval - space.default.retrieval for one in replays])),
        better=better / len(gains),
        better_interval=(float(interval.low), float(interval.high)),
        by_chance=float(np.mean([one.test > space.default.test for one in space.runs[1:]])),
    )


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, as if the replays were independent; they share the seeds of the table."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _courses(space: str, method: str, replays: Sequence[Replay]) -> Courses:
    last = min(one.trained for one in replays)
    grid = np.arange(10, last + 1, 5)
    values = []
    for one in replays:
        found = np.array([runs.validation for runs in one.best])
        place = np.searchsorted(one.epochs, grid, side="right") - 1
        values.append(np.where(place >= 0, found[place.clip(0)], np.nan))
    table = np.array(values)
    known = np.isfinite(table).all(axis=0)
    return Courses(space, method, grid[known], table[:, known])
