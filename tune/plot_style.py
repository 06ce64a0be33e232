"""What the figures for the browser have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from colotride.tune.looks import INK, between, short
from colotride.tune.parameters import AnyParameter, Choice


def laid_out(figure: go.Figure, x: str = "", y: str = "", *, height: int, left: int = 60, trials: int = 0) -> go.Figure:
    """Give a figure the look of the report."""
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


def dots(name: str, colour: str | list[str], hover: Sequence[str]) -> dict[str, Any]:
    """Trials as dots that tell of themselves."""
    marker = {"color": colour, "size": 9}
    pointed = {"hovertext": list(hover), "hoverinfo": "text"} if hover else {}
    return {"mode": "markers", "marker": marker, "name": name, **pointed}


def xy(places: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Coordinates as plotly takes them."""
    return {"x": [x for x, _ in places], "y": [y for _, y in places]}


def place(parameter: AnyParameter, values: Mapping[str, Any]) -> Any:
    """Where a point lies along a parameter."""
    value = values[parameter.name]
    return short(value) if isinstance(parameter, Choice) else value


def axis(parameter: AnyParameter) -> dict[str, Any]:
    """An axis for a parameter."""
    if isinstance(parameter, Choice):
        order = [short(value) for value in parameter.values]
        return {"title": parameter.name, "type": "category", "categoryorder": "array", "categoryarray": order}
    if not parameter.log:
        return {"title": parameter.name}
    marks = between(parameter)
    return {"title": parameter.name, "type": "log", "tickvals": marks, "ticktext": [short(mark) for mark in marks]}
