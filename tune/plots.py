"""The figures of a search for the browser: they answer to the pointer, and need neither a network nor WebGL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.io import to_html
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from tune.findings import Findings
from tune.looks import BEST, INK, LINE, MISSING, SCALE, between, colour_of, described, short, statuses
from tune.parameters import AnyParameter, Choice
from tune.strands import strands
from tune.surface import surface

BUTTONS = ["toImage", "zoom2d", "pan2d", "resetScale2d"]
BRUSHES = ["toImage", "select2d", "zoom2d", "resetScale2d"]
"""The others would offer what makes no sense here, or send the figure to a server."""

BRUSH = """
const plot = document.getElementById("{plot_id}");
const show = keep => Plotly.restyle(plot, {opacity: plot.data.map((_, i) => keep === null || keep.has(i) ? 1 : 0.06)});
plot.on("plotly_selected", event => show(event && event.points.length ? new Set(event.points.map(p => p.curveNumber)) : null));
plot.on("plotly_deselect", () => show(null));
"""
"""A box over the parallel axes keeps the lines that cross it."""


def library() -> str:
    """The script that draws all plots; it belongs into the page once."""
    return str(get_plotlyjs())


def plots(findings: Findings) -> dict[str, str]:
    """Every figure for which the search has enough trials, as a piece of HTML, by name."""
    drawn = {name: draw(findings) for name, draw in PLOTS.items()}
    return {
        name: to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{name}",
            default_height=f"{figure.layout.height}px",
            config={
                "displaylogo": False,
                "responsive": True,
                "modeBarButtons": [BRUSHES if name == "parallel" else BUTTONS],
            },
            post_script=BRUSH if name == "parallel" else None,
        )
        for name, figure in drawn.items()
        if figure is not None
    }


def plot_history(findings: Findings) -> go.Figure | None:
    """See `figures.draw_history`."""
    figure = go.Figure()
    values = findings.last_values()
    for status in statuses(list(findings.rows)):
        chosen = [
            (row, value)
            for row, value in zip(findings.rows, values, strict=True)
            if row.status == status and value is not None
        ]
        figure.add_scatter(
            x=[row.number for row, _ in chosen],
            y=[value for _, value in chosen],
            **_dots(status, colour_of(status), [described(row) for row, _ in chosen]),
        )
    figure.add_scatter(
        x=[point.number for point in findings.points],
        y=np.maximum.accumulate([point.objectives[0] for point in findings.points]) if findings.points else [],
        mode="lines",
        line={"shape": "hv", "color": BEST},
        name="best so far",
        hoverinfo="skip",
    )
    return _laid_out(figure, "trial", f"validation {findings.objectives[0]}", height=340, trials=len(findings.rows))


def plot_front(findings: Findings) -> go.Figure | None:
    """See `figures.draw_front`."""
    panels = findings.panels()
    if not findings.points:
        return None
    figure = make_subplots(1, len(panels), horizontal_spacing=0.09)
    texts = {row.number: described(row) for row in findings.rows}
    for column, panel in enumerate(panels, start=1):
        place = {"row": 1, "col": column}
        first = {"showlegend": column == 1}
        if panel.others:
            figure.add_scatter(**_xy(panel.others), **_dots("stopped", colour_of("stopped"), []), **first, **place)
        hover = [texts.get(number, f"trial {number}") for number in panel.numbers]
        figure.add_scatter(**_xy(panel.places), **_dots("finished", colour_of("finished"), hover), **first, **place)
        figure.add_scatter(
            **_xy([panel.places[position] for position in panel.front]),
            mode="lines+markers" if len(panels) == 1 else "markers",
            marker={"symbol": "circle-open", "size": 14, "color": BEST, "line": {"width": 2}},
            name="front",
            hoverinfo="skip",
            **first,
            **place,
        )
        figure.update_xaxes(title=f"validation {panel.x}", **place)
        figure.update_yaxes(title=f"validation {panel.y}", **place)
    return _laid_out(figure, height=400)


def plot_importance(findings: Findings) -> go.Figure | None:
    """See `figures.draw_importance`."""
    shown = [(name, ranked) for name, ranked in zip(findings.objectives, findings.ranked, strict=True) if ranked]
    if not shown:
        return None
    figure = make_subplots(1, len(shown), horizontal_spacing=0.25 / len(shown))
    for column, (name, ranked) in enumerate(shown, start=1):
        figure.add_bar(
            y=[one.name for one in ranked],
            x=[one.share for one in ranked],
            orientation="h",
            text=[f"{one.share:.2f}" for one in ranked],
            textposition="outside",
            marker_color=colour_of("finished"),
            hovertext=[f"from {one.trials} finished trials" for one in ranked],
            hoverinfo="text",
            showlegend=False,
            row=1,
            col=column,
        )
        title = f"share of the variance of {name}"
        figure.update_xaxes(title=title, range=[0, 1.1], row=1, col=column)
        figure.update_yaxes(autorange="reversed", automargin=True, row=1, col=column)
    return _laid_out(figure, height=110 + 34 * len(shown[0][1]))


def plot_slices(findings: Findings) -> go.Figure | None:
    """See `figures.draw_slices`."""
    leaders, best = findings.leaders, findings.best.number if findings.best else None
    if not leaders:
        return None
    figure = make_subplots(1, len(leaders), shared_yaxes=True, horizontal_spacing=0.05)
    texts = {row.number: described(row) for row in findings.rows}
    for column, parameter in enumerate(leaders, start=1):
        points = [point for point in findings.points if parameter.name in point.values]
        colours = [BEST if point.number == best else colour_of("finished") for point in points]
        figure.add_scatter(
            x=[_place(parameter, point.values) for point in points],
            y=[point.objectives[0] for point in points],
            **_dots("finished", colours, [texts.get(point.number, "") for point in points]),
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(**_axis(parameter), row=1, col=column)
    figure.update_yaxes(title=f"validation {findings.objectives[0]}", row=1, col=1)
    return _laid_out(figure, height=340)


def plot_contour(findings: Findings) -> go.Figure | None:
    """See `figures.draw_contour`."""
    if len(findings.leaders) < 2:
        return None
    x, y = findings.leaders
    points = [point for point in findings.points if x.name in point.values and y.name in point.values]
    heights = [point.objectives[0] for point in points]
    low, high = min(heights), max(heights)
    bar = {"title": {"text": f"validation {findings.objectives[0]}", "side": "right"}}
    figure = go.Figure()
    found = surface(points, heights, x, y)
    if found is not None:
        levels = {"start": low, "end": high, "size": (high - low) / 14 or 1.0}
        figure.add_contour(
            x=found.x,
            y=found.y,
            z=found.z,
            zmin=low,
            zmax=high,
            contours=levels,
            colorscale=SCALE,
            showscale=False,
            line_width=0,
            hoverinfo="skip",
        )
    texts = {row.number: described(row) for row in findings.rows}
    figure.add_scatter(
        x=[_place(x, point.values) for point in points],
        y=[_place(y, point.values) for point in points],
        mode="markers",
        marker={
            "size": 10,
            "color": heights,
            "cmin": low,
            "cmax": high,
            "colorscale": SCALE,
            "colorbar": bar,
            "showscale": True,
            "line": {"color": "white", "width": 1.5},
        },
        hovertext=[texts.get(point.number, "") for point in points],
        hoverinfo="text",
        showlegend=False,
    )
    figure.update_xaxes(**_axis(x))
    figure.update_yaxes(**_axis(y))
    return _laid_out(figure, height=460)


def plot_parallel(findings: Findings) -> go.Figure | None:
    """See `figures.draw_parallel`; a box drawn over an axis keeps the lines that cross it."""
    axes, made = strands(findings)
    values = [one.value for one in made if one.value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    figure = go.Figure()
    seen: set[str] = set()
    for one in made:
        finished, status = one.value is not None, one.row.status
        share = (one.value - low) / (high - low) if one.value is not None and high > low else 1.0
        colour = sample_colorscale(SCALE, [share])[0] if finished else colour_of(status)
        figure.add_scatter(
            x=list(range(len(axes))),
            y=one.places,
            mode="lines+markers",
            line={"color": colour, "width": 2 if finished else 1.2, "dash": "solid" if finished else "dot"},
            marker={"size": 5},
            name=status,
            legendgroup=status,
            showlegend=status not in seen,
            hovertext=described(one.row),
            hoverinfo="text",
        )
        seen.add(status)
    for number, axis in enumerate(axes):
        figure.add_vline(number, line={"color": LINE, "width": 1}, layer="below")
        for place, text in axis.ticks:
            figure.add_annotation(
                x=number,
                y=place,
                text=text,
                showarrow=False,
                xanchor="left",
                xshift=4,
                yshift=9,
                font={"size": 11},
                bgcolor="rgba(255, 255, 255, 0.7)",
            )
    if any(MISSING in one.places for one in made):
        figure.add_annotation(x=0, y=MISSING, text="–", showarrow=False, xanchor="right", xshift=-6)
    if values:
        # A trace without points carries the colour bar.
        bar = {"title": {"text": f"validation {findings.objectives[0]}", "side": "right"}}
        marker = {"color": [low], "cmin": low, "cmax": high, "colorscale": SCALE, "colorbar": bar, "showscale": True}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False, hoverinfo="skip")
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[axis.name for axis in axes],
        range=[-0.15, len(axes) - 0.4],
        showgrid=False,
        showline=False,
        tickangle=-25,
        automargin=True,
    )
    figure.update_yaxes(visible=False, range=[-0.2, 1.12])
    figure.update_layout(dragmode="select")
    return _laid_out(figure, height=500, left=110)


def plot_epochs(findings: Findings) -> go.Figure | None:
    """See `figures.draw_epochs`."""
    figure = go.Figure()
    for status in statuses(list(findings.rows)):
        chosen = [row for row in findings.rows if row.status == status]
        figure.add_bar(
            x=[row.number for row in chosen],
            y=[row.epoch for row in chosen],
            name=status,
            marker_color=colour_of(status),
            hovertext=[described(row) for row in chosen],
            hoverinfo="text",
        )
    figure.add_bar(
        x=[row.number for row in findings.rows],
        y=[max(0, findings.epochs - row.epoch) for row in findings.rows],
        name="not trained",
        marker_color="#eef1f4",
        hoverinfo="skip",
    )
    figure.update_layout(barmode="stack")
    return _laid_out(figure, "trial", "epochs trained", height=280, trials=len(findings.rows))


PLOTS: Mapping[str, Callable[[Findings], go.Figure | None]] = {
    "history": plot_history,
    "front": plot_front,
    "importance": plot_importance,
    "slices": plot_slices,
    "contour": plot_contour,
    "parallel": plot_parallel,
    "epochs": plot_epochs,
}


def _laid_out(
    figure: go.Figure, x: str = "", y: str = "", *, height: int, left: int = 60, trials: int = 0
) -> go.Figure:
    figure.update_layout(
        template="simple_white",
        height=height,
        margin={"l": left, "r": 20, "t": 30, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    if x:
        figure.update_xaxes(title=x)
    if y:
        figure.update_yaxes(title=y)
    if 0 < trials <= 20:
        figure.update_xaxes(dtick=1)
    return figure


def _dots(name: str, colour: str | list[str], hover: Sequence[str]) -> dict[str, Any]:
    marker = {"color": colour, "size": 9}
    pointed = {"hovertext": list(hover), "hoverinfo": "text"} if hover else {}
    return {"mode": "markers", "marker": marker, "name": name, **pointed}


def _xy(places: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    return {"x": [x for x, _ in places], "y": [y for _, y in places]}


def _place(parameter: AnyParameter, values: Mapping[str, Any]) -> Any:
    value = values[parameter.name]
    return short(value) if isinstance(parameter, Choice) else value


def _axis(parameter: AnyParameter) -> dict[str, Any]:
    if isinstance(parameter, Choice):
        order = [short(value) for value in parameter.values]
        return {"title": parameter.name, "type": "category", "categoryorder": "array", "categoryarray": order}
    if not parameter.log:
        return {"title": parameter.name}
    marks = between(parameter)
    return {"title": parameter.name, "type": "log", "tickvals": marks, "ticktext": [short(mark) for mark in marks]}
