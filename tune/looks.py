"""How the figures of a search look, whichever library draws them."""

import html
import math
from typing import Any

from colotride.tune.parameters import AnyParameter, Choice
from colotride.tune.trials import TrialRow

COLOURS = {
    "finished": "#2a6f97",
    "stopped": "#a9b4c2",
    "collapsed": "#e09f3e",
    "nan": "#b5651d",
    "diverged": "#8c4a1f",
    "out-of-memory": "#9d4edd",
    "error": "#7d1f2f",
    "running": "#6fb1a0",
}
BEST, LINE, INK = "#c1121f", "#9aa7b5", "#1d2733"
SCALE = "viridis"
MISSING = -0.12
"""Where a value that a trial does not have lies on an axis from 0 to 1."""


def colour_of(status: str) -> str:
    """The colour of trials that ended so."""
    return COLOURS.get(status, COLOURS["error"])


def statuses(rows: list[TrialRow]) -> list[str]:
    """The ends that occur, finished first."""
    found = {row.status for row in rows}
    return [status for status in COLOURS if status in found] + sorted(found - COLOURS.keys())


def short(value: Any) -> str:
    """One value, short; a dash where a parameter does not apply."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ticks(parameter: AnyParameter) -> list[tuple[float, str]]:
    """The ends of a range, or all choices, with their places on an axis from 0 to 1."""
    if isinstance(parameter, Choice):
        last = max(1, len(parameter.values) - 1)
        return [(number / last, short(value)) for number, value in enumerate(parameter.values)]
    return [(0.0, short(float(parameter.low))), (1.0, short(float(parameter.high)))]


def between(parameter: AnyParameter) -> list[float]:
    """Round values (1, 2 and 5 times powers of ten) between the ends of a range that is searched logarithmically."""
    if isinstance(parameter, Choice) or not parameter.log:
        return []
    powers = range(math.floor(math.log10(parameter.low)), math.ceil(math.log10(parameter.high)) + 1)
    rounds = (digit * 10.0**power for power in powers for digit in (1, 2, 5))
    return [value for value in rounds if parameter.low <= value <= parameter.high]


def described(row: TrialRow) -> str:
    """A trial in a few lines of hypertext."""
    lines = [f"<b>trial {row.number}</b>, {row.status} at epoch {row.epoch}"]
    lines += [f"{html.escape(name)} {html.escape(short(value))}" for name, value in row.values.items()]
    if row.scores:
        lines.append(", ".join(f"{name} {score:.1f}" for name, score in row.scores.items()))
    return "<br>".join(lines)
