"""An evaluation as a table of pandas and as a figure of matplotlib."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from colotride.errors import ConfigurationError
from colotride.evaluation.record import EvaluationRecord
from colotride.evaluation.scores import RESISTANCE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def frame_of(evaluation: EvaluationRecord) -> "pd.DataFrame":
    """One row per score, named as in the paper's tables, with its `value` and the ends `low` and `high` of its interval.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ConfigurationError(
            "a table needs pandas, which is not installed: pip install 'colotride[report]'"
        ) from None
    scores = evaluation.scores()
    nothing = (np.nan, np.nan)
    ends = [evaluation.intervals.get(name, nothing) for name in scores]
    columns = {"value": list(scores.values()), "low": [low for low, _ in ends], "high": [high for _, high in ends]}
    return pd.DataFrame(columns, index=pd.Index(scores, name="score"))


def figure_of(evaluation: EvaluationRecord) -> Figure:
    """The resistances to the eight attacks of Table 2, and ARS and ERS, as bars with their intervals.

    An evaluation at several radii has a second panel, ARS and ERS against the radius.
    """
    named = {name: f"ARS {name}" for name in RESISTANCE_COLUMNS} | {"ARS": "ARS", "ERS": "ERS"}
    scores = evaluation.scores()
    values = np.array([scores[name] for name in named.values()])
    ends = [evaluation.intervals.get(name, (scores[name], scores[name])) for name in named.values()]
    reach = np.abs(np.array(ends).T - values)
    panels = 2 if evaluation.curve else 1
    figure = Figure(figsize=(8, 3.2 * panels), layout="constrained")
    axes, *others = figure.subplots(panels, squeeze=False)[:, 0]
    colours = ["#7f9cb8"] * len(RESISTANCE_COLUMNS) + ["#1f4e79"] * 2
    bars = axes.bar(list(named), values, color=colours, yerr=reach, capsize=3, ecolor="#55616e")
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set(ylim=(0, 115), ylabel="resistance in percent (more is more robust)")
    axes.spines[["top", "right"]].set_visible(False)
    if others:
        _draw_curve(others[0], evaluation)
    return figure


def _draw_curve(axes: Axes, evaluation: EvaluationRecord) -> None:
    points = evaluation.curve
    levels = 255 if evaluation.norm == "linf" else 1
    radii = [levels * point.epsilon for point in points]
    for name, colour in (("ARS", "#1f4e79"), ("ERS", "#c8324a")):
        axes.plot(radii, [getattr(point, name) for point in points], marker="o", color=colour, label=name)
        if all(name in point.intervals for point in points):
            low, high = zip(*(point.intervals[name] for point in points), strict=True)
            axes.fill_between(radii, low, high, color=colour, alpha=0.15, linewidth=0)
    unit = "levels of 255" if evaluation.norm == "linf" else "pixel units, l2"
    axes.set(ylim=(0, 105), xlabel=f"radius of the perturbation ({unit})", ylabel="percent (more is more robust)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
