"""The report of a search: one HTML file that needs nothing beside it, and its figures as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import optuna

from colotride.io import write_atomically
from colotride.tune.figures import write_figures
from colotride.tune.findings import Findings, findings_of, saved
from colotride.tune.looks import colour_of, short, statuses
from colotride.tune.parameters import Choice
from colotride.tune.plots import library, plots
from colotride.tune.points import ENOUGH
from colotride.tune.space import Space
from colotride.tune.trials import TrialRow


def write_report(
    folder: Path,
    *,
    title: str,
    study: optuna.Study,
    rows: Sequence[TrialRow],
    space: Space,
    objectives: Sequence[str],
    epochs: int,
    verdict: Sequence[Mapping[str, str]] = (),
) -> list[Path]:
    """Write the report, each file atomically.

    Args:
        folder: gets report.html and figures/*.png; of the figures those for which there are enough trials.
        title: name of the search.
        study: whose trials, counted from 0, are those of the rows, counted from 1; finished ones are COMPLETE.
        rows: all trials, in the order of their starts.
        space: that was searched.
        objectives: names of scores, as many as the study has directions, all maximised.
        epochs: of a trial that is trained to the end.
        verdict: a table of texts by column, the same columns in each row; may be empty.

    Returns:
        The files that were written, the report first.
    """
    findings = findings_of(study, rows, space, objectives, epochs)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("colotride.tune", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        findings=findings,
        library=library(),
        plots=plots(findings),
        counts=[(status, sum(row.status == status for row in rows)) for status in statuses(list(rows))],
        saved=saved(rows, epochs),
        trained=sum(row.epoch for row in rows),
        missing=_missing(findings),
        kind_of_contour=_kind_of_contour(findings),
        partial=[one for one in findings.ranked[0] if one.trials < len(findings.points)],
        verdict=list(verdict),
        trials=[_line(row, findings) for row in rows],
        unfinished=[row for row in rows if row.status not in ("finished", "stopped", "running")],
        colour_of=colour_of,
    )
    report = folder / "report.html"
    write_atomically(report, page.encode())
    return [report, *write_figures(findings, folder / "figures")]


def _missing(findings: Findings) -> str:
    """Why there is no importance, and so no pair of parameters that matter most; empty where there is one."""
    count = len(findings.points)
    if count < ENOUGH:
        return f"{count} of {len(findings.rows)} trials reached their last epoch; this takes {ENOUGH} or more."
    return "All finished trials scored alike, so that no parameter mattered." if not findings.ranked[0] else ""


def _kind_of_contour(findings: Findings) -> str:
    pair = findings.leaders
    if len(pair) < 2:
        return "Only one parameter was varied in the trials that finished, so that there is no pair to show."
    if any(isinstance(parameter, Choice) for parameter in pair):
        return "One of the two is a choice: between choices there is nothing, so that the trials stand alone."
    return "Interpolated linearly between finished trials (dots); blank where there are none around."


def _line(row: TrialRow, findings: Findings) -> dict[str, Any]:
    names = ("R@1", "ERS", "ARS")
    return {
        "number": row.number,
        "values": [short(row.values.get(parameter.name)) for parameter in findings.space.parameters],
        "epoch": row.epoch,
        "scores": [f"{row.scores[name]:.1f}" if name in row.scores else "–" for name in names],
        "seconds": f"{row.seconds:.0f}",
        "status": row.status,
        "best": findings.best is not None and row.number == findings.best.number,
    }
