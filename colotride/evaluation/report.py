"""The report that people look at: one HTML file that needs nothing beside it."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from colotride.evaluation.cases import Case
from colotride.evaluation.results import Evaluation
from colotride.evaluation.sanity import Check
from colotride.evaluation.scores import ATTACK_COLUMNS, RANK_GOALS
from colotride.io import write_atomically

BEFORE, AFTER = "#3b6ea5", "#d1495b"


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    dataset: str,
    others: Mapping[str, Mapping[str, float]],
    cases: Sequence[Case],
    checks: Sequence[Check],
) -> None:
    """Write the report, atomically.

    Args:
        path: of the HTML file.
        evaluation: with the values of its single images.
        title: name of the model.
        dataset: name of the image set.
        others: printed rows to stand beside ours, by name.
        cases: for the gallery; may be empty.
        checks: of the sanity pass; empty where it was not run.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("colotride.evaluation", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        dataset=dataset,
        result=evaluation,
        epsilon=_in_levels(evaluation.epsilon),
        step_size=_in_levels(evaluation.step_size),
        rows=_rows(evaluation, others),
        others=list(others),
        bars=_bars(evaluation),
        ranks=_ranks(evaluation),
        cases=[_shown(case) for case in cases],
        small_images=bool(cases) and cases[0].pixels.shape[-1] < 84,
        checks=checks,
        suspected=[f'"{check.name}" fails, {check.meaning}' for check in checks if not check.passed],
    )
    write_atomically(path, page.encode())


def _in_levels(size: float) -> str:
    levels = size * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 else f"{size:.4g}"


def _rows(evaluation: Evaluation, others: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    rows = []
    for name, value in evaluation.scores().items():
        digits = 2 if name in ("TMA", "ES:D") else 1
        low, high = evaluation.intervals.get(name, (None, None))
        interval = f"{low:.{digits}f} to {high:.{digits}f}" if low is not None and high is not None else ""
        printed = [f"{other[name]:.{digits}f}" if name in other else "" for other in others.values()]
        rows.append({"name": name, "value": f"{value:.{digits}f}", "interval": interval, "others": printed})
    return rows


def _bars(evaluation: Evaluation) -> str:
    names = [name for name in ATTACK_COLUMNS if name not in ("TMA", "ES:D")]
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))
    for offset, when, colour in ((-0.2, "before", BEFORE), (0.2, "after", AFTER)):
        heights = [float(evaluation.per_query[name][when].double().mean()) for name in names]
        bars = axes.bar(places + offset, heights, 0.38, label=when, color=colour)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(places, names)
    axes.set(ylim=(0, 125), ylabel="rank or share, %")
    axes.legend(frameon=False, ncols=2, loc="upper center", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _ranks(evaluation: Evaluation) -> str:
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(RANK_GOALS), sharey=True), RANK_GOALS, strict=True):
        values = evaluation.per_query[name]
        change = (values["after"] - values["before"]).numpy()
        axes.hist(change, bins=np.linspace(-100, 100, 41), color=AFTER, weights=np.full(len(change), 100 / len(change)))
        axes.axvline(0, color="#55616e", linewidth=0.8)
        axes.set_title(f"{name}, mean {change.mean():+.1f}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("share of queries, %", fontsize=9)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    # Matplotlib names its shapes at random in each file; without the header the drawing stands inside the page.
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _shown(case: Case) -> dict[str, Any]:
    lists = {
        when: [{"pixels": _data(one.pixels), "label": one.label, "right": one.right} for one in getattr(case, when)]
        for when in ("before", "after")
    }
    return {
        "query": case.query,
        "label": case.label,
        "shift": case.shift,
        "pixels": _data(case.pixels),
        "perturbation": _data(case.perturbation),
        **lists,
    }


def _data(pixels: Float[Tensor, "channels height width"]) -> str:
    array = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
