"""Samplers against each other at one total budget: what `colotride benchmark search` measures."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from colotride.config import RunConfig
from colotride.io import save_figure
from colotride.tune.plan import SearchPlan
from colotride.tune.ray_tune import run_trials
from colotride.tune.records import TrialRecord
from colotride.tune.resources import SearchFolders, TrialResources
from colotride.tune.space import build_space
from colotride.tune.study import SearchStudy

METHODS: Mapping[str, dict[str, Any]] = {
    "random": {"sampler": "random", "stopping": "none"},
    "TPE, ASHA": {"sampler": "tpe", "stopping": "asha"},
}

COLOURS = {"default": "#6c757d", "random": "#e09f3e", "TPE, ASHA": "#c1121f"}


@dataclass(frozen=True)
class Course:
    """One search of one method with one seed."""

    method: str
    seed: int
    default: float
    """The objective of the default configuration, its first trial."""
    epochs: list[int]
    """Epochs trained over all trials when each finished trial had ended."""
    best: list[float]
    """The best objective of a finished trial then."""
    trials: int
    stopped: int
    """Trials that were stopped early."""
    saved: float
    """Share of the epochs that these trials would have taken and did not, in [0, 1]."""
    seconds: float
    """Wall time."""
    training: float
    """Seconds of all epochs, validation included."""
    overhead: float
    """Seconds per trial and slot that were not training or validation: processes, imports, Ray, Optuna."""


def compare(
    base: RunConfig, *, trials: int, seeds: Sequence[int], at_once: int, on_search: Callable[[str], None]
) -> list[Course]:
    """Search with every method and seed; all may train as many epochs in all.

    Args:
        base: what the trials vary; its seed is replaced, so that the seed moves everything.
        trials: that are trained to the end within the budget; with stopping there are more, shorter ones.
        seeds: one search each, per method.
        at_once: trials side by side.
        on_search: called with the name of each search before it.
    """
    courses = []
    for seed in seeds:
        for method, settings in METHODS.items():
            on_search(f"{method}, seed {seed}")
            config = base.with_values({"seed": seed, "data.hold_out_validation": True})
            space, budget = build_space(config), trials * config.training.epochs
            plan = SearchPlan(
                base=config,
                space=space,
                initial_points=(space.values_of(config, clip=True),),
                trials=10 * trials,
                max_epochs=budget,
                seed=seed,
                **settings,
            )
            courses.append(_course(method, plan, at_once))
    # Where trials may be stopped, the default's was perhaps stopped too.
    whole = {course.seed: course.default for course in courses if METHODS[course.method]["stopping"] == "none"}
    return [replace(course, default=whole[course.seed]) for course in courses]


class _Log:
    """Records in which order the trials end; a `TrialCallback`."""

    def __init__(self) -> None:
        self.ended_records: list[TrialRecord] = []

    def started(self, record: TrialRecord) -> None:
        pass

    def reported(self, record: TrialRecord) -> None:
        pass

    def ended(self, record: TrialRecord) -> None:
        self.ended_records.append(record)


def _course(method: str, plan: SearchPlan, at_once: int) -> Course:
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), _Log()
        study = SearchStudy(folder, plan)
        resources = TrialResources(concurrent=at_once)
        began = time.perf_counter()
        run_trials(study, folder, resources, at_once, SearchFolders(folder), [log])
        seconds = time.perf_counter() - began
    records, epochs, best = study.records(), list[int](), list[float]()
    trained, highest = 0, -np.inf
    for record in log.ended_records:
        trained += record.epoch
        if record.status == "finished":
            highest = max(highest, record.scores["ARS"])
            epochs.append(trained)
            best.append(float(highest))
    stopped = [record for record in records if record.status == "stopped"]
    would = plan.epochs * len(records)
    return Course(
        method=method,
        seed=plan.seed,
        default=records[0].scores["ARS"],
        epochs=epochs,
        best=best,
        trials=len(records),
        stopped=len(stopped),
        saved=sum(plan.epochs - record.epoch for record in stopped) / would,
        seconds=seconds,
        training=sum(record.seconds for record in records),
        overhead=(seconds * at_once - sum(record.seconds for record in records)) / len(records),
    )


def draw_comparison(courses: Sequence[Course], budget: int, path: Path) -> None:
    """Best validation ARS over the epochs trained: mean of the seeds, and their standard error as a band."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    grid = np.arange(1, budget + 1)
    for method in METHODS:
        chosen = [course for course in courses if course.method == method]
        values = np.array([_on_grid(course, grid) for course in chosen])
        known = np.isfinite(values).all(axis=0)
        mean, error = values[:, known].mean(axis=0), values[:, known].std(axis=0) / np.sqrt(max(1, len(chosen) - 1))
        axes.plot(grid[known], mean, color=COLOURS[method], label=method)
        axes.fill_between(grid[known], mean - error, mean + error, color=COLOURS[method], alpha=0.15, linewidth=0)
    default = float(np.mean([course.default for course in courses if course.method == "random"]))
    axes.axhline(default, color=COLOURS["default"], linestyle="--", label="default configuration")
    axes.set(xlabel="epochs trained over all trials", ylabel="best validation ARS so far")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _on_grid(course: Course, grid: np.ndarray) -> np.ndarray:
    """The best value at each number of epochs; not known before the first trial has ended."""
    place = np.searchsorted(course.epochs, grid, side="right") - 1
    return np.where(place >= 0, np.array(course.best)[place.clip(0)], np.nan)
