"""What a search ends with: tables, pictures, files, and how to go on."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from colotride.evaluation.table import table_of
from colotride.io import write_atomically
from colotride.tracking.export import DEFAULT_URI, absolute
from colotride.tune.display import trial_table, value_text
from colotride.tune.final import BEST, DEFAULT, Finalist, save_contenders
from colotride.tune.memory import Memory
from colotride.tune.picture import draw_search
from colotride.tune.report import write_report
from colotride.tune.session import Session
from colotride.tune.standing import differences, verdict_rows, verdict_table
from colotride.tune.trials import TrialRow, pareto_front

INTERRUPTED = 130
"""Exit code of a search that was interrupted, as shells have it."""


def save_trials(rows: Sequence[TrialRow], path: Path) -> None:
    """Write all trials with their values, curves, costs and ends as JSON, atomically."""
    plain = [dataclasses.asdict(row) | {"cost": row.cost} for row in rows]
    write_atomically(path, (json.dumps(plain, indent=2) + "\n").encode())


def draw(session: Session, memory: Memory, ranked: Sequence[TrialRow], finalists: Sequence[Finalist]) -> list[Path]:
    """Write configurations, trials, picture and report; returns the files that belong into the record."""
    plan, folder, rows = session.plan, session.folder, memory.rows()
    save_contenders(session, ranked)
    save_trials(rows, folder / "trials.json")
    first = {one.name: one.judged[0].evaluation for one in finalists}
    evaluations = {name: one for name, one in first.items() if one is not None}
    picture = folder / "search.png"
    draw_search(rows, evaluations, picture, f"{folder.name}: {len(rows)} trials on {plan.base.data.name}")
    report = write_report(
        folder,
        title=folder.name,
        study=memory.study,
        rows=rows,
        space=plan.space,
        objectives=plan.objectives,
        epochs=plan.epochs,
        verdict=_verdict(session, finalists),
    )
    return [folder / "best.yaml", folder / "trials.json", folder / "search.json", picture, *report]


def interrupted(session: Session, rows: Sequence[TrialRow]) -> int:
    """Show what there is so far and how to go on; returns the exit code."""
    plan, console = session.plan, session.console
    save_trials(rows, session.folder / "trials.json")
    console.print(trial_table(rows, plan.space, plan.objectives[0], title="Interrupted; trials so far"))
    console.print(f"Nothing is lost. Go on with:\n  {session.resume_command}", highlight=False, soft_wrap=True)
    return INTERRUPTED


def conclude(
    session: Session,
    rows: Sequence[TrialRow],
    ranked: Sequence[TrialRow],
    finalists: Sequence[Finalist],
    uri: str,
    model: str | None,
) -> None:
    """Tell a person what was found and where it lies."""
    plan, folder, console = session.plan, session.folder, session.console
    best, objective = ranked[0], plan.objectives[0]
    console.print(
        trial_table(
            rows,
            plan.space,
            objective,
            title="Trials, scores on the held-out training classes (in brackets: earlier, with less)",
        )
    )
    if len(plan.objectives) > 1:
        front = pareto_front(rows, plan.objectives)
        title = f"Pareto front of {' and '.join(plan.objectives)}"
        console.print(trial_table(front, plan.space, objective, title=title))
    console.print(f"\n[bold]Best configuration[/bold] (trial {best.number}):")
    for name, value in best.values.items():
        default = rows[0].values.get(name)
        console.print(f"  {name.replace('_', ' '):<26}{value_text(value):>9}   (default {value_text(default)})")
    _show_verdict(session, finalists)
    console.print(
        f"\nResults     {folder}  (report.html, best.yaml, trials.json, search.png, verdict/)", soft_wrap=True
    )
    console.print(f"Train it    python scripts/train.py --config {folder / 'best.yaml'}", soft_wrap=True)
    if model is not None:
        console.print(f"Use it      models:/{model}/latest, the winner's model in MLflow", highlight=False)
    opened = "make ui" if uri == absolute(DEFAULT_URI) else f"mlflow ui --backend-store-uri {uri}"
    console.print(f"Compare     {opened}, then http://127.0.0.1:5000", soft_wrap=True)


def result_of(session: Session, ranked: Sequence[TrialRow], finalists: Sequence[Finalist]) -> dict[str, object]:
    """The same for machines."""
    return {
        "folder": str(session.folder),
        "best": dataclasses.asdict(ranked[0]),
        "front": [row.number for row in pareto_front(ranked, session.plan.objectives)],
        "verdict": {one.name: {"scores": one.standing.scores, "lost": list(one.standing.lost)} for one in finalists},
        "table": _verdict(session, finalists),
    }


def _verdict(session: Session, finalists: Sequence[Finalist]) -> list[dict[str, str]]:
    if not finalists:
        return []
    return verdict_rows({one.name: one.standing for one in finalists}, session.plan.objectives[0])


def _show_verdict(session: Session, finalists: Sequence[Finalist]) -> None:
    if not finalists:
        return
    console = session.console
    console.print()
    first = {one.name: one.judged[0].evaluation for one in finalists if one.name in (DEFAULT, BEST)}
    evaluations = {name: one for name, one in first.items() if one is not None}
    if evaluations:
        console.print(table_of(evaluations, title=f"Verdict on the test classes, seed {finalists[0].config.seed}"))
    rows = _verdict(session, finalists)
    console.print(verdict_table(rows, title="Verdict over all seeds"))
    for line in differences(rows):
        console.print(line, highlight=False)
    if len(finalists) == 1:
        console.print("The default configuration is the best one that was found.")
