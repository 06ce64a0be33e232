"""The figures of a search as PNG files."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from colotride.io import write_atomically
from colotride.tune.findings import Findings
from colotride.tune.looks import BEST, INK, LINE, MISSING, SCALE, between, colour_of, short, statuses
from colotride.tune.parameters import AnyParameter, Choice
from colotride.tune.strands import strands
from colotride.tune.surface import surface


def write_figures(findings: Findings, folder: Path) -> list[Path]:
    """Draw every figure for which the search has enough trials; returns the files.

    Args:
        findings: of the search.
        folder: gets history.png, front.png, importance.png, slices.png, contour.png, parallel.png and epochs.png.
    """
    written = []
    for name, draw in FIGURES.items():
        figure = draw(findings)
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=130)
            write_atomically(folder / f"{name}.png", buffer.getvalue())
            written.append(folder / f"{name}.png")
    return written


def draw_history(findings: Findings) -> Figure | None:
    """The first objective of each finished trial and the best so far; the others are marked below."""
    figure, axes = _plain(9, 3.4)
    values = dict(zip((row.number for row in findings.rows), findings.last_values(), strict=True))
    for status in statuses(list(findings.rows)):
        numbers = [row.number for row in findings.rows if row.status == status]
        places = [findings.floor() if (value := values[number]) is None else value for number in numbers]
        mark = "o" if status == "finished" else "x"
        axes.scatter(numbers, places, color=colour_of(status), marker=mark, label=status, zorder=3)
    if findings.points:
        best = np.maximum.accumulate([point.objectives[0] for point in findings.points])
        axes.step([point.number for point in findings.points], best, where="post", color=BEST, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"validation {findings.objectives[0]}")
    axes.legend(frameon=False, fontsize="small")
    return figure


def draw_front(findings: Findings) -> Figure | None:
    """The trade-off between objectives: what no other trial beats in all of them."""
    panels = findings.panels()
    if not findings.points:
        return None
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        axes.scatter(*zip(*panel.places, strict=True), color=colour_of("finished"), label="finished")
        best = [panel.places[position] for position in panel.front]
        style = "o-" if len(panels) == 1 else "o"
        axes.plot(*zip(*best, strict=True), style, color=BEST, markerfacecolor="none", markersize=11, label="front")
        for position in panel.front:
            axes.annotate(
                str(panel.numbers[position]), panel.places[position], (7, 7), textcoords="offset points", fontsize=8
            )
        axes.set(xlabel=f"validation {panel.x}", ylabel=f"validation {panel.y}")
        axes.legend(frameon=False, fontsize="small")
        _clean(axes)
    return figure


def draw_importance(findings: Findings) -> Figure | None:
    """FANOVA's importance of each parameter, by objective."""
    shown = [(name, ranked) for name, ranked in zip(findings.objectives, findings.ranked, strict=True) if ranked]
    if not shown:
        return None
    figure = Figure(figsize=(4.6 * len(shown) + 2, 0.42 * len(shown[0][1]) + 1.2), layout="constrained")
    for axes, (name, ranked) in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        ordered = ranked[::-1]
        bars = axes.barh([one.name for one in ordered], [one.share for one in ordered], color=colour_of("finished"))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axes.set(xlabel=f"share of the variance of {name}", xlim=(0, 1.08))
        _clean(axes)
    return figure


def draw_slices(findings: Findings) -> Figure | None:
    """The first objective along each of the two parameters that matter most."""
    leaders, best = findings.leaders, findings.best.number if findings.best else None
    if not leaders:
        return None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, parameter in zip(figure.subplots(1, len(leaders), sharey=True, squeeze=False)[0], leaders, strict=True):
        points = [point for point in findings.points if parameter.name in point.values]
        places = [_place(parameter, point.values) for point in points]
        values = [point.objectives[0] for point in points]
        colours = [BEST if point.number == best else colour_of("finished") for point in points]
        axes.scatter(places, values, c=colours)
        _scale(axes, "x", parameter)
        _clean(axes)
    figure.axes[0].set_ylabel(f"validation {findings.objectives[0]}")
    return figure


def draw_contour(findings: Findings) -> Figure | None:
    """The first objective over the two parameters that matter most; single trials where one is a choice."""
    if len(findings.leaders) < 2:
        return None
    x, y = findings.leaders
    points = [point for point in findings.points if x.name in point.values and y.name in point.values]
    heights = [point.objectives[0] for point in points]
    figure, axes = _plain(7.4, 4.6)
    level = Normalize(min(heights), max(heights))
    found = surface(points, heights, x, y)
    if found is not None:
        axes.contourf(found.x, found.y, found.z, levels=14, cmap=SCALE, norm=level)
    across, up = ([_place(one, point.values) for point in points] for one in (x, y))
    axes.scatter(across, up, c=heights, cmap=SCALE, norm=level, edgecolors="white", s=45)
    axes.margins(0.05)
    axes.use_sticky_edges = False
    _scale(axes, "x", x)
    _scale(axes, "y", y)
    figure.colorbar(ScalarMappable(level, SCALE), ax=axes, label=f"validation {findings.objectives[0]}")
    return figure


def draw_parallel(findings: Findings) -> Figure | None:
    """Every trial as a line across all parameters and objectives."""
    axes_of, made = strands(findings)
    figure = Figure(figsize=(1.25 * len(axes_of) + 1, 4.6), layout="constrained")
    axes = figure.subplots()
    values = [one.value for one in made if one.value is not None]
    level = Normalize(min(values, default=0), max(values, default=1))
    for one in made:
        finished = one.value is not None
        colour = colormaps[SCALE](level(one.value)) if one.value is not None else colour_of(one.row.status)
        axes.plot(one.places, color=colour, linewidth=1.6 if finished else 0.9, alpha=1 if finished else 0.6)
    for number, axis in enumerate(axes_of):
        axes.axvline(number, color=LINE, linewidth=0.8, zorder=0)
        for place, text in axis.ticks:
            axes.annotate(text, (number, place), (4, 3), textcoords="offset points", fontsize=8, color=INK)
    if any(MISSING in one.places for one in made):
        axes.annotate("–", (0, MISSING), (-12, -3), textcoords="offset points")
    axes.set_xticks(range(len(axes_of)), [axis.name for axis in axes_of], rotation=25, ha="right")
    axes.set(yticks=[], xlim=(-0.2, len(axes_of) - 0.4))
    axes.spines[:].set_visible(False)
    if values:
        figure.colorbar(ScalarMappable(level, SCALE), ax=axes, label=f"validation {findings.objectives[0]}", pad=0.01)
    return figure


def draw_epochs(findings: Findings) -> Figure | None:
    """How far each trial was trained."""
    figure, axes = _plain(9, 2.6)
    numbers = [row.number for row in findings.rows]
    axes.bar(numbers, [findings.epochs] * len(numbers), color="#eef1f4", width=0.8)
    for status in statuses(list(findings.rows)):
        chosen = [row for row in findings.rows if row.status == status]
        heights = [row.epoch for row in chosen]
        axes.bar([row.number for row in chosen], heights, color=colour_of(status), label=status, width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="epochs trained", ylim=(0, findings.epochs * 1.02))
    figure.legend(frameon=False, fontsize="small", loc="outside upper right", ncols=4)
    return figure


FIGURES: Mapping[str, Callable[[Findings], Figure | None]] = {
    "history": draw_history,
    "front": draw_front,
    "importance": draw_importance,
    "slices": draw_slices,
    "contour": draw_contour,
    "parallel": draw_parallel,
    "epochs": draw_epochs,
}


def _plain(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _place(parameter: AnyParameter, values: Mapping[str, Any]) -> float:
    value = values[parameter.name]
    return parameter.values.index(value) if isinstance(parameter, Choice) else value


def _scale(axes: Axes, which: str, parameter: AnyParameter) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(parameter.name)
    if isinstance(parameter, Choice):
        axis.set_ticks(range(len(parameter.values)), [short(value) for value in parameter.values])
    elif parameter.log:
        getattr(axes, f"set_{which}scale")("log")
        marks = between(parameter)
        axis.set_ticks(marks, [short(mark) for mark in marks])
        axis.set_ticks([], minor=True)
