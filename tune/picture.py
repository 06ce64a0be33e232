"""A search in one picture: its course, what it found, and what that is worth on the test classes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from colotride.atomic import write_atomically
from colotride.evaluation.results import Evaluation
from colotride.evaluation.scores import RESISTANCE_COLUMNS
from tune.trials import TrialRow

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
    numbers = [row.number for row in rows]
    values = [row.scores.get("ARS", 0.0) for row in rows]
    finished = [value if row.status == "finished" else -np.inf for row, value in zip(rows, values, strict=True)]
    colours = [COLOURS.get(row.status, COLOURS["collapsed"]) for row in rows]
    axes.scatter(numbers, values, c=colours, zorder=3)
    best = np.maximum.accumulate(finished)
    known = np.isfinite(best)
    axes.step(np.array(numbers)[known], best[known], where="post", color=COLOURS["best"], label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="validation ARS", title="Course")
    axes.legend(loc="lower right", frameon=False)
    axes.grid(alpha=0.3)


def _draw_trade_off(axes: Axes, rows: Sequence[TrialRow]) -> None:
    for status, label in (("finished", "finished"), ("stopped", "stopped early")):
        chosen = [row for row in rows if row.status == status and row.scores]
        axes.scatter(
            [row.scores["R@1"] for row in chosen],
            [row.scores["ARS"] for row in chosen],
            color=COLOURS[status],
            label=label,
        )
    if rows and rows[0].scores:
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
