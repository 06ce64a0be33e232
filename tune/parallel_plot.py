"""All trials across parallel axes, for the browser: drawn without WebGL, which is not everywhere."""

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from colotride.tune.findings import Findings
from colotride.tune.looks import LINE, MISSING, SCALE, colour_of, described
from colotride.tune.plot_style import laid_out
from colotride.tune.strands import strands

BRUSH = """
const plot = document.getElementById("{plot_id}");
const show = keep => Plotly.restyle(plot, {opacity: plot.data.map((_, i) => keep === null || keep.has(i) ? 1 : 0.06)});
plot.on("plotly_selected", event => show(event && event.points.length ? new Set(event.points.map(p => p.curveNumber)) : null));
plot.on("plotly_deselect", () => show(null));
"""
"""A box over the parallel axes keeps the lines that cross it."""


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
    return laid_out(figure, height=500, left=110)
