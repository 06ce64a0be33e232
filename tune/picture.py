"""A search in one picture: its course, what it found, and what that is worth on the test classes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from colotride.evaluation.results import Evaluation
from colotride.evaluation.scores import RESISTANCE_COLUMNS
from colotride.io import write_atomically
from colotride.tune.trials import TrialRow

COLOURS = {"finished": "#2a6f97", "stopped": "#a9b4c2", "collapsed": "#e09f3e", "default": "#6c757d", "best": "#c1121f"}


def draw_search(rows: Sequence[TrialRow], judged: Mapping[str, Evaluation], path: Path, title: str) -> None:
    """Write the picture as PNG, atomically.

    Args:
        rows: all trials; the first is the default configuration.
        judged: evaluations on the test side by name ("default", "best"); may be empty.
        path: of the PNG file.
        title: above the picture.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    figure.suptitle(title)
    course, trade_off, resistance = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    _draw_course(course, rows)
    _draw_trade_off(trade_off, rows)
    _draw_resistance(resistance, judged)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomically(path, buffer.getvalue())


def _draw_course(axes: Axes, rows: Sequence[TrialRow]) -> None:
    finished = [row for row in rows if row.status == "finished"]
    numbers, values = [row.number for row in finished], [row.scores["ARS"] for row in finished]
    axes.scatter(numbers, values, color=COLOURS["finished"], zorder=3)
    if finished:
        best = np.maximum.accumulate(values)
        axes.step(numbers, best, where="post", color=COLOURS["best"], label="best so far")
    # What a trial had reached at an earlier epoch was measured with less, and is no number to compare.
    for status, label in (("stopped", "stopped early"), ("collapsed", "collapsed")):
        ended = [row.number for row in rows if row.status == status]
        if ended:
            place = axes.get_xaxis_transform()
            axes.scatter(ended, [0.03] * len(ended), marker="x", color=COLOURS[status], transform=place, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="validation ARS", title="Course")
    axes.legend(loc="best", frameon=False, fontsize="small")
    axes.grid(alpha=0.3)


def _draw_trade_off(axes: Axes, rows: Sequence[TrialRow]) -> None:
    places = [(row.scores["R@1"], row.scores["ARS"]) for row in rows if row.status == "finished"]
    if places:
        axes.scatter(*zip(*places, strict=True), color=COLOURS["finished"], label="finished")
    if rows and rows[0].status == "finished":
        axes.scatter(
            rows[0].scores["R@1"], rows[0].scores["ARS"], marker="s", color=COLOURS["default"], label="default"
        )
    finished = [row for row in rows if row.status == "finished"]
    if finished:
        best = max(finished, key=lambda row: row.scores["ARS"])
        axes.scatter(best.scores["R@1"], best.scores["ARS"], marker="*", s=200, color=COLOURS["best"], label="best")
    axes.set(xlabel="validation R@1", ylabel="validation ARS", title="Accuracy and robustness")
    axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.3)


def _draw_resistance(axes: Axes, judged: Mapping[str, Evaluation]) -> None:
    names = [*RESISTANCE_COLUMNS, "ARS"]
    width = 0.8 / max(1, len(judged))
    for index, (name, evaluation) in enumerate(judged.items()):
        values = [*(evaluation.resistance[column] for column in RESISTANCE_COLUMNS), evaluation.ARS]
        places = np.arange(len(names)) + (index - (len(judged) - 1) / 2) * width
        bars = axes.bar(places, values, width, color=COLOURS.get(name), label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(ylabel="resistance, %", ylim=(0, 105), title="Test classes: share of each attack that was resisted")
    if judged:
        axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
