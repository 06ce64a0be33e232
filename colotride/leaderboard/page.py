"""The leaderboard as one static page: a table and a picture per group of comparable records."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from colotride.io import write_atomically
from colotride.leaderboard.records import Record
from colotride.templates import inline_svg, render

MEANINGS = {
    "strict": "every attack does what its definition says",
    "published": "the attacks of the code behind the papers' numbers, weaker in some attacks",
    "strong": "the worst case of an ensemble of parameter-free attacks, at twice the cost of strict",
}

COLOURS = {"published": "#8a6d1f", "measured": "#2f6db3"}


def write_page(path: Path, records: Iterable[Record], *, title: str = "Robust image retrieval") -> None:
    """Write the page, atomically; it loads nothing from elsewhere.

    Args:
        path: of the HTML file.
        records: in any order; each group is sorted by ARS, the most robust first.
        title: of the page.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    page = render(
        "colotride.leaderboard",
        "page.html.j2",
        title=title,
        groups=[_group(groups[key]) for key in sorted(groups)],
        style=files("colotride.leaderboard").joinpath("page.css").read_text(),
    )
    write_atomically(path, page.encode())


def _group(records: Sequence[Record]) -> dict[str, Any]:
    first = records[0]
    ordered = sorted(records, key=lambda one: (-1.0 if one.ARS is None else one.ARS, one.ERS or 0.0), reverse=True)
    levels = first.epsilon * 255
    return {
        "dataset": first.dataset,
        "norm": first.norm,
        "epsilon": f"{levels:.3g}/255" if first.norm == "linf" else f"{first.epsilon:.3g}",
        "protocol": first.protocol,
        "meaning": MEANINGS[first.protocol],
        "definition": first.resistance_definition,
        "rows": [_row(one) for one in ordered],
        "picture": _picture(ordered),
    }


def _row(record: Record) -> dict[str, Any]:
    cells = [(name, record.scores().get(name)) for name in ("R@1", "mAP", "ES:R", "ERS", "ARS")]
    return {
        "record": record,
        "cells": [("" if value is None else f"{value:.1f}", _interval(record, name)) for name, value in cells],
        "attacked": "not said" if record.queries is None else f"{record.queries} images",
    }


def _interval(record: Record, name: str) -> str:
    found = record.intervals.get(name)
    return "" if found is None else f"{found[0]:.1f} to {found[1]:.1f}"


def _picture(records: Sequence[Record]) -> str:
    """R@1 against ARS as SVG, or nothing where no record has both."""
    shown = [(one, one.benign["R@1"], one.ARS) for one in records if one.ARS is not None and "R@1" in one.benign]
    if not shown:
        return ""
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for record, recall, score in shown:
            axes.plot(recall, score, "o", color=COLOURS[record.origin], markersize=7)
            # A dollar sign would begin a formula.
            axes.annotate(
                record.model.replace("$", r"\$"), (recall, score), textcoords="offset points", xytext=(6, 5), fontsize=8
            )
        axes.set(xlabel="R@1 without an attack, in %", ylabel="ARS")
        # Room for the names, which stand to the right of their points.
        axes.margins(x=0.2, y=0.15)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        return inline_svg(figure)
