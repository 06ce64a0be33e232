"""Trials as strands across parallel axes: one axis per parameter, one per objective, and how the trial ended."""

from dataclasses import dataclass

from colotride.tune.findings import Findings
from colotride.tune.looks import MISSING, short, statuses, ticks
from colotride.tune.points import scaled
from colotride.tune.trials import TrialRow


@dataclass(frozen=True)
class Axis:
    """One of the parallel axes, from 0 to 1."""

    name: str
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Strand:
    """One trial."""

    row: TrialRow
    value: float | None
    """Of the first objective, for a finished trial."""
    places: list[float]
    """By axis."""


def strands(findings: Findings) -> tuple[list[Axis], list[Strand]]:
    """All axes, and all trials: those that did not finish first, then the finished ones from poor to good."""
    rows = list(findings.rows)
    ends = statuses(rows)
    axes = [Axis(parameter.name, ticks(parameter)) for parameter in findings.space.parameters]
    points = {point.number: point.objectives for point in findings.points}
    last = dict(zip((row.number for row in rows), findings.last_values(), strict=True))
    reached: list[dict[int, float]] = []
    for index, name in enumerate(findings.objectives):
        values = {number: one[index] for number, one in points.items()}
        if index == 0:
            values |= {number: value for number, value in last.items() if value is not None}
        reached.append(values)
        low, high = min(values.values(), default=0.0), max(values.values(), default=1.0)
        axes.append(
            Axis(name, [(0.0, short(float(low))), (1.0, short(float(high)))] if high > low else [(0.0, short(low))])
        )
    axes.append(Axis("end", [(_at(number, len(ends)), status) for number, status in enumerate(ends)]))
    made = []
    for row in rows:
        places = [
            scaled(parameter, row.values[parameter.name]) if parameter.name in row.values else MISSING
            for parameter in findings.space.parameters
        ]
        places += [_between(values, row.number) for values in reached]
        places.append(_at(ends.index(row.status), len(ends)))
        value = points[row.number][0] if row.number in points else None
        made.append(Strand(row, value, places))
    made.sort(key=lambda one: (one.value is not None, one.value if one.value is not None else 0.0))
    return axes, made


def _at(number: int, count: int) -> float:
    # Finished, the first, stands on top, as do the good values.
    return 1 - number / (count - 1) if count > 1 else 1.0


def _between(values: dict[int, float], number: int) -> float:
    if number not in values:
        return MISSING
    low, high = min(values.values()), max(values.values())
    return (values[number] - low) / (high - low) if high > low else 0.0
