"""The figures of a search for the browser: they answer to the pointer, and need neither a network nor WebGL."""

from collections.abc import Callable, Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from colotride.tune.findings import Findings
from colotride.tune.looks import BEST, colour_of, described, statuses
from colotride.tune.parallel_plot import BRUSH, plot_parallel
from colotride.tune.parameter_plots import plot_contour, plot_importance, plot_slices
from colotride.tune.plot_style import dots, laid_out, xy

BUTTONS = ["toImage", "zoom2d", "pan2d", "resetScale2d"]
BRUSHES = ["toImage", "select2d", "zoom2d", "resetScale2d"]
"""The others would offer what makes no sense here, or send the figure to a server."""


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
    values = dict(zip((row.number for row in findings.rows), findings.last_values(), strict=True))
    for status in statuses(list(findings.rows)):
        chosen = [row for row in findings.rows if row.status == status]
        figure.add_scatter(
            x=[row.number for row in chosen],
            y=[findings.floor() if (value := values[row.number]) is None else value for row in chosen],
            **dots(status, colour_of(status), [described(row) for row in chosen]),
        )
        figure.data[-1].marker.symbol = "circle" if status == "finished" else "x-thin-open"
    figure.add_scatter(
        x=[point.number for point in findings.points],
        y=np.maximum.accumulate([point.objectives[0] for point in findings.points]) if findings.points else [],
        mode="lines",
        line={"shape": "hv", "color": BEST},
        name="best so far",
        hoverinfo="skip",
    )
    return laid_out(figure, "trial", f"validation {findings.objectives[0]}", height=340, trials=len(findings.rows))


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
        hover = [texts.get(number, f"trial {number}") for number in panel.numbers]
        figure.add_scatter(**xy(panel.places), **dots("finished", colour_of("finished"), hover), **first, **place)
        figure.add_scatter(
            **xy([panel.places[position] for position in panel.front]),
            mode="lines+markers" if len(panels) == 1 else "markers",
            marker={"symbol": "circle-open", "size": 14, "color": BEST, "line": {"width": 2}},
            name="front",
            hoverinfo="skip",
            **first,
            **place,
        )
        figure.update_xaxes(title=f"validation {panel.x}", **place)
        figure.update_yaxes(title=f"validation {panel.y}", **place)
    return laid_out(figure, height=400)


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
    return laid_out(figure, "trial", "epochs trained", height=280, trials=len(findings.rows))


PLOTS: Mapping[str, Callable[[Findings], go.Figure | None]] = {
    "history": plot_history,
    "front": plot_front,
    "importance": plot_importance,
    "slices": plot_slices,
    "contour": plot_contour,
    "parallel": plot_parallel,
    "epochs": plot_epochs,
}
