"""Which parameters matter, and how, for the browser."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from colotride.tune.findings import Findings
from colotride.tune.looks import BEST, SCALE, colour_of, described
from colotride.tune.plot_style import axis, dots, laid_out, place
from colotride.tune.surface import surface


def plot_importance(findings: Findings) -> go.Figure | None:
    """See `figures.draw_importance`."""
    shown = [(name, ranked) for name, ranked in zip(findings.objectives, findings.ranked, strict=True) if ranked]
    if not shown:
        return None
    figure = make_subplots(1, len(shown), horizontal_spacing=0.16)
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
    return laid_out(figure, height=110 + 34 * len(shown[0][1]))


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
            x=[place(parameter, point.values) for point in points],
            y=[point.objectives[0] for point in points],
            **dots("finished", colours, [texts.get(point.number, "") for point in points]),
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(**axis(parameter), row=1, col=column)
    figure.update_yaxes(title=f"validation {findings.objectives[0]}", row=1, col=1)
    return laid_out(figure, height=340)


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
        x=[place(x, point.values) for point in points],
        y=[place(y, point.values) for point in points],
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
    figure.update_xaxes(**axis(x))
    figure.update_yaxes(**axis(y))
    return laid_out(figure, height=460)
