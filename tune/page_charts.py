"""The charts of a search for the page: they respond to the pointer, and need neither a network nor WebGL."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import optuna
import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from colotride.tune.charts import COLOURS, Bars, Chart

MARKS = [digit * 10.0**power for power in range(-8, 9) for digit in (1, 2, 5)]
"""Round values for logarithmic axes; plotly shows those that lie on an axis."""

AXIS_HEIGHT = 54
"""Pixels from one of the parallel axes to the next."""


def library() -> str:
    """The script that draws all charts; the page needs it once."""
    return str(get_plotlyjs())


def page_charts(charts: Mapping[str, Chart | Bars]) -> dict[str, str]:
    """Every chart as a piece of HTML, by name."""
    return {
        name: to_html(
            figure := _styled(plotly_figure(chart)),
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{name.replace(' ', '-').replace('@', '-at-')}",
            default_height=f"{figure.layout.height}px",
            config={"displaylogo": False, "responsive": True, "displayModeBar": False},
        )
        for name, chart in charts.items()
    }


def plotly_figure(chart: Chart | Bars) -> go.Figure:
    """A chart as plotly draws it."""
    if isinstance(chart, Chart):
        return _optuna_figure(chart)
    figure = go.Figure()
    for name, values in chart.series.items():
        figure.add_bar(x=list(chart.x), y=list(values), name=name, marker_color=COLOURS.get(name))
    figure.update_layout(barmode="stack" if chart.stacked else "group")
    figure.update_xaxes(title=chart.x_title)
    figure.update_yaxes(title=chart.y_title)
    return figure


def _optuna_figure(chart: Chart) -> go.Figure:
    figure = getattr(optuna.visualization, chart.function)(chart.study, **chart.arguments)
    for trace in figure.data:
        if trace.name in chart.colours:
            trace.line.color = trace.marker.color = chart.colours[trace.name]
    if chart.colours:
        # A name per trial would fill the page; the pointer shows it.
        figure.update_layout(showlegend=False)
    if chart.titles is not None:
        figure.update_xaxes(title=chart.titles[0])
        figure.update_yaxes(title=chart.titles[1])
    if chart.function in ("plot_pareto_front", "plot_slice"):
        # Optuna colours by the number of the trial; the two scales would take half of a narrow screen.
        names = ("finished", "best") if chart.function == "plot_pareto_front" else ("finished",) * len(figure.data)
        for trace, name in zip(figure.data, names, strict=False):
            trace.marker.update(color=COLOURS[name], showscale=False, size=8)
        figure.update_layout(showlegend=False)
    if chart.function == "plot_slice":
        # Beside each other on a narrow screen, long names would run into one another.
        figure.for_each_xaxis(
            lambda axis: axis.update(title_text="<br>".join(wrap(axis.title.text.replace("_", " "), 12)))
        )
    return _transposed(figure, chart.study) if chart.function == "plot_parallel_coordinate" else figure


def _styled(figure: go.Figure) -> go.Figure:
    """The style of the report, which must also fit the screen of a telephone."""
    figure.update_layout(
        template="simple_white",
        title=None,
        height=figure.layout.height or 360,
        margin={"l": 10, "r": 10, "t": 30, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#1d2733"},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hoverlabel={"align": "left"},
        autosize=True,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    texts = [f"{mark:g}" for mark in MARKS]
    for update in (figure.for_each_xaxis, figure.for_each_yaxis):
        update(lambda axis: axis.update(tickvals=MARKS, ticktext=texts) if axis.type == "log" else None)
    for trace in figure.data:
        if trace.type == "bar" and trace.orientation == "h":
            # The number beside the longest bar needs space too.
            figure.update_xaxes(range=[0, 1.2 * max(trace.x)])
        if trace.type == "contour":
            trace.colorbar.update(thickness=10, title={"side": "right"})
    return figure


def _transposed(figure: go.Figure, study: optuna.Study) -> go.Figure:
    """Optuna's parallel coordinates with the axes below each other, so that they can be read on a narrow screen."""
    trials = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    names = [*(study.metric_names or ()), *sorted({name for trial in trials for name in trial.params})]
    for trace in figure.data:
        trace.x, trace.y = trace.y, trace.x
    turned = [
        {**shape.to_plotly_json(), "x0": shape.y0, "x1": shape.y1, "y0": shape.x0, "y1": shape.x1}
        for shape in figure.layout.shapes
    ]
    notes: list[dict[str, Any]] = [
        {"x": note.y, "y": note.x, "text": note.text, "showarrow": False, "yanchor": "top", "yshift": -2,
         "font": {"size": 10, "color": "#55616e"}}
        for note in figure.layout.annotations
    ]  # fmt: skip
    notes += [
        {"x": 0, "y": row, "text": f"<b>{name}</b>", "showarrow": False, "xanchor": "left", "yanchor": "bottom",
         "yshift": 3, "bgcolor": "rgba(255,255,255,0.8)", "borderpad": 1}
        for row, name in enumerate(names)
    ]  # fmt: skip
    figure.layout.shapes, figure.layout.annotations = turned, notes
    figure.data[-1].marker.colorbar.update(
        orientation="h", thickness=10, x=0.5, y=0, yanchor="top", title={"side": "bottom"}
    )
    count = len(figure.layout.shapes)
    figure.update_layout(height=AXIS_HEIGHT * count + 130)
    figure.update_xaxes(range=[-0.06, 1.06], visible=False, tickvals=None, ticktext=None)
    figure.update_yaxes(range=[count - 0.5, -0.6], visible=False, fixedrange=True)
    return figure
