"""The charts of a search: Optuna's own, drawn by plotly for the page and by matplotlib for the pictures.

Ours are only those that Optuna lacks: the epochs saved by stopping, and the attacks of the final evaluation. Optuna's
importances are computed by our evaluator, see `importance`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from optuna.trial import TrialState, create_trial

from colotride.evaluation.scores import RESISTANCE_COLUMNS
from colotride.io import save_figure
from colotride.tune.final_evaluation import Finalist
from colotride.tune.importance import ENOUGH, SearchedScaleFanova, quiet
from colotride.tune.parameters import AnyParameter, Choice, Integer, Space
from colotride.tune.records import TrialRecord

COLOURS = {
    "finished": "#2a6f97",
    "stopped": "#a9b4c2",
    "collapsed": "#e09f3e",
    "nan": "#b5651d",
    "diverged": "#8c4a1f",
    "out-of-memory": "#9d4edd",
    "error": "#7d1f2f",
    "running": "#6fb1a0",
    "not trained": "#eef1f4",
    "default": "#6c757d",
    "best": "#c1121f",
}
"""By the status of a trial, or the name of a finalist."""

STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}


@dataclass(frozen=True)
class Chart:
    """One of Optuna's charts, whichever library draws it."""

    function: str
    """In `optuna.visualization` and in `optuna.visualization.matplotlib`."""
    study: optuna.Study
    arguments: Mapping[str, Any] = field(default_factory=dict)
    titles: tuple[str, str] | None = None
    """Of the two axes, where Optuna's own titles say too little."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Of lines by Optuna's name for them ("Trial3")."""


@dataclass(frozen=True)
class Bars:
    """One of our own charts: several series of bars."""

    x: Sequence[int | str]
    series: Mapping[str, Sequence[int | float]]
    """By name, which also says the colour."""
    x_title: str
    y_title: str
    stacked: bool


@dataclass(frozen=True)
class Importances:
    """Which parameters matter to the first objective."""

    shares: dict[str, float]
    """By parameter, the greatest first; they add up to 1. Empty where no importance can be given."""
    missing: str
    """Why no importance can be given."""

    @property
    def leaders(self) -> list[str]:
        """The two parameters that matter most, or as many as there are."""
        return list(self.shares)[:2]


def charts_of(
    records: Sequence[TrialRecord],
    space: Space,
    objectives: Sequence[str],
    epochs: int,
    finalists: Sequence[Finalist] = (),
) -> tuple[dict[str, Chart | Bars], Importances]:
    """Every chart by name for which the search has enough trials, and which parameters matter.

    Args:
        records: all trials.
        space: that was searched.
        objectives: scores, all maximised; the first one leads.
        epochs: of a trial that is trained to the end.
        finalists: of the final evaluation; may be empty.
    """
    study, first = study_of(records, space, objectives), study_of(records, space, objectives[:1])
    found = importances_of(study)
    named = {"target_name": f"validation {objectives[0]}, %"}
    target = named if len(objectives) == 1 else {"target": lambda trial: trial.values[0], **named}
    finished = [record for record in records if record.status == "finished"]
    charts: dict[str, Chart | Bars] = {}
    evaluations = {one.name: one.first_evaluation for one in finalists if one.first_evaluation is not None}
    if evaluations:
        columns = [*RESISTANCE_COLUMNS, "ARS"]
        series = {
            name: [*(one.resistance[column] for column in RESISTANCE_COLUMNS), one.ARS]
            for name, one in evaluations.items()
        }
        charts["verdict"] = Bars(columns, series, "attack", "resisted on the test classes, %", stacked=False)
    if finished:
        charts["history"] = Chart("plot_optimization_history", first, named)
    if any(len(record.curve(objectives[0])) > 1 for record in records):
        ends = {f"Trial{record.number}": COLOURS.get(record.status, COLOURS["error"]) for record in records}
        titles = ("epoch", f"validation {objectives[0]}, %")
        charts["curves"] = Chart("plot_intermediate_values", first, titles=titles, colours=ends)
    if finished:
        pairs = list(combinations(objectives, 2)) or [("R@1", "ARS")]
        for x, y in pairs:
            label = {"target_names": [f"validation {x}, %", f"validation {y}, %"]}
            name = "front" if len(pairs) == 1 else f"front {x} {y}"
            charts[name] = Chart("plot_pareto_front", study_of(records, space, (x, y)), label)
    if found.shares:
        charts["importance"] = Chart(
            "plot_param_importances", study, {"evaluator": SearchedScaleFanova()}, ("share of the variance", "")
        )
        charts["slices"] = Chart("plot_slice", study, {"params": found.leaders, **target})
    if len(found.leaders) == 2:
        charts["contour"] = Chart("plot_contour", study, {"params": found.leaders, **target})
    if finished:
        charts["parallel"] = Chart("plot_parallel_coordinate", study, named if len(objectives) == 1 else {})
    statuses = [status for status in COLOURS if any(record.status == status for record in records)]
    trained: dict[str, list[int | float]] = {
        status: [record.epoch if record.status == status else 0 for record in records] for status in statuses
    }
    trained["not trained"] = [max(0, epochs - record.epoch) for record in records]
    charts["epochs"] = Bars([record.number for record in records], trained, "trial", "epochs", stacked=True)
    return charts, found


def study_of(records: Sequence[TrialRecord], space: Space, objectives: Sequence[str]) -> optuna.Study:
    """The trials as an Optuna study in memory, which draws them by our numbers.

    What a trial that was stopped had reached is not among its values: it was measured with less, against which a model
    looks more robust than it is.
    """
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["maximize"] * len(objectives))
        study.set_metric_names([f"{name}, %" for name in objectives])
    # Optuna counts from 0.
    study.add_trial(create_trial(state=TrialState.FAIL))
    ranges = {parameter.name: _distribution(parameter) for parameter in space.parameters}
    for record in records:
        state = STATES.get(record.status, TrialState.FAIL)
        study.add_trial(
            create_trial(
                state=state,
                values=[record.scores[name] for name in objectives] if state == TrialState.COMPLETE else None,
                params=record.values,
                distributions={name: ranges[name] for name in record.values},
                intermediate_values=record.curve(objectives[0]),
            )
        )
    return study


def importances_of(study: optuna.Study) -> Importances:
    """Which parameters matter to the first objective of a study."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) < ENOUGH:
        count = f"{len(trials)} of {len(study.trials) - 1} trials"
        return Importances({}, f"{count} reached their last epoch; this takes {ENOUGH} or more.")
    if len({trial.values[0] for trial in trials}) == 1:
        return Importances({}, "All finished trials had the same score, so that no parameter mattered.")
    shares = get_param_importances(study, evaluator=SearchedScaleFanova(), target=lambda trial: trial.values[0])
    return Importances({name: float(share) for name, share in shares.items()}, "")


def write_pictures(charts: Mapping[str, Chart | Bars], folder: Path) -> list[Path]:
    """Draw every chart with matplotlib as a PNG file, atomically; returns the files."""
    written = []
    for name, chart in charts.items():
        figure = _bars_figure(chart) if isinstance(chart, Bars) else _optuna_figure(chart)
        path = folder / f"{name.replace(' ', '-').replace('@', '-at-')}.png"
        written.append(save_figure(figure, path, dpi=120, tight=True))
        pyplot.close(figure)
    return written


def _optuna_figure(chart: Chart) -> Figure:
    from optuna.visualization import matplotlib as drawn

    with warnings.catch_warnings(), pyplot.rc_context({"figure.figsize": (9, 4.5)}):
        warnings.simplefilter("ignore")
        axes = np.ravel(getattr(drawn, chart.function)(chart.study, **chart.arguments))
    figure = axes[0].figure
    assert isinstance(figure, Figure)
    for one in axes:
        one.set_title("")
        if chart.titles is not None:
            one.set(xlabel=chart.titles[0], ylabel=chart.titles[1])
        for line in one.lines:
            line.set_color(chart.colours.get(str(line.get_label()), line.get_color()))
    legend = axes[0].get_legend()
    if chart.colours and legend is not None:
        # A name per trial would fill the picture.
        legend.remove()
    if figure.get_suptitle():
        figure.suptitle("")
    return figure


def _bars_figure(bars: Bars) -> Figure:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes: Axes = figure.subplots()
    places, below = np.arange(len(bars.x)), np.zeros(len(bars.x))
    width = 0.8 if bars.stacked else 0.8 / max(1, len(bars.series))
    for index, (name, values) in enumerate(bars.series.items()):
        shift = 0.0 if bars.stacked else (index - (len(bars.series) - 1) / 2) * width
        axes.bar(places + shift, values, width, bottom=below, color=COLOURS.get(name), label=name)
        below = below + values if bars.stacked else below
    if len(bars.x) <= 20:
        axes.set_xticks(places, [str(one) for one in bars.x])
    axes.set(xlabel=bars.x_title, ylabel=bars.y_title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _distribution(parameter: AnyParameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    kind = IntDistribution if isinstance(parameter, Integer) else FloatDistribution
    return kind(parameter.low, parameter.high, log=parameter.log)
