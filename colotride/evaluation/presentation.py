"""An evaluation as a table of pandas and as a figure of matplotlib."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from colotride.errors import ConfigurationError
from colotride.evaluation.results import Evaluation
from colotride.evaluation.scores import RESISTANCE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def frame_of(evaluation: Evaluation) -> "pd.DataFrame":
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


def figure_of(evaluation: Evaluation) -> Figure:
    """The resistances to the eight attacks of Table 2, and ARS and ERS, as bars with their intervals."""
    named = {name: f"ARS {name}" for name in RESISTANCE_COLUMNS} | {"ARS": "ARS", "ERS": "ERS"}
    scores = evaluation.scores()
    values = np.array([scores[name] for name in named.values()])
    ends = [evaluation.intervals.get(name, (scores[name], scores[name])) for name in named.values()]
    reach = np.abs(np.array(ends).T - values)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    colours = ["#7f9cb8"] * len(RESISTANCE_COLUMNS) + ["#1f4e79"] * 2
    bars = axes.bar(list(named), values, color=colours, yerr=reach, capsize=3, ecolor="#55616e")
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set(ylim=(0, 115), ylabel="resistance in percent (more is more robust)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
