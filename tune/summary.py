"""What a search ends with: tables for a person, JSON for a program, and how to go on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from colotride.evaluation.table import table_of
from colotride.io import write_atomically
from colotride.tracking.export import DEFAULT_URI, absolute
from colotride.tune.final_evaluation import BEST, Finalist
from colotride.tune.plan import SearchPlan
from colotride.tune.progress import trial_table, value_text
from colotride.tune.records import TrialRecord, pareto_front
from colotride.tune.seed_statistics import DEFAULT, difference_lines, verdict_rows, verdict_table


def save_trials(records: Sequence[TrialRecord], path: Path) -> None:
    """Write all trials with their values, curves, costs and ends as JSON, atomically."""
    write_atomically(path, (json.dumps([record.plain() for record in records], indent=2) + "\n").encode())


def show_interrupted(console: Console, plan: SearchPlan, folder: Path, records: Sequence[TrialRecord]) -> None:
    """Show what there is so far, and how to go on."""
    console.print(trial_table(records, plan.space, plan.objectives[0], title="Interrupted; trials so far"))
    console.print(
        f"Nothing is lost. Go on with:\n  python tune/search.py --results {folder.parent} --resume {folder.name}",
        highlight=False,
        soft_wrap=True,
    )


def show_summary(
    console: Console,
    plan: SearchPlan,
    folder: Path,
    records: Sequence[TrialRecord],
    ranked: Sequence[TrialRecord],
    finalists: Sequence[Finalist],
    tracking_uri: str,
    model: str | None,
) -> None:
    """Tell a person what was found, and where it is.

    Args:
        console: where.
        plan: of the search.
        folder: of the search.
        records: all trials.
        ranked: the finished ones, from the best to the worst.
        finalists: of the final evaluation; may be empty.
        tracking_uri: MLflow's store.
        model: name of the winner's model in MLflow, where there is one.
    """
    best, objective = ranked[0], plan.objectives[0]
    title = "Trials, scores in % on the held-out training classes (in brackets: earlier, with less)"
    console.print(trial_table(records, plan.space, objective, title=title))
    if len(plan.objectives) > 1:
        title = f"Pareto front of {' and '.join(plan.objectives)}"
        console.print(trial_table(pareto_front(records, plan.objectives), plan.space, objective, title=title))
    console.print(f"\n[bold]Best configuration[/bold] (trial {best.number}):")
    for name, value in best.values.items():
        default = value_text(records[0].values.get(name))
        console.print(f"  {name.replace('_', ' '):<26}{value_text(value):>9}   (default {default})")
    _show_verdict(console, plan, finalists)
    files = "report.html, figures/, best.yaml, trials.json" + (", verdict/" if finalists else "")
    console.print(f"\nResults     {folder}  ({files})", soft_wrap=True)
    console.print(f"Train it    python scripts/train.py --config {folder / 'best.yaml'}", soft_wrap=True)
    if model is not None:
        console.print(f"Use it      models:/{model}/latest, the winner's model in MLflow", highlight=False)
    opened = "make ui" if tracking_uri == absolute(DEFAULT_URI) else f"mlflow ui --backend-store-uri {tracking_uri}"
    console.print(f"Compare     {opened}, then http://127.0.0.1:5000", soft_wrap=True)


def as_json(
    plan: SearchPlan, folder: Path, ranked: Sequence[TrialRecord], finalists: Sequence[Finalist]
) -> dict[str, Any]:
    """The same for a program."""
    return {
        "folder": str(folder),
        "best": ranked[0].plain(),
        "front": [record.number for record in pareto_front(ranked, plan.objectives)],
        "verdict": {
            one.name: {"scores": one.statistics.scores, "lost": list(one.statistics.lost)} for one in finalists
        },
        "table": _rows(plan, finalists),
    }


def _rows(plan: SearchPlan, finalists: Sequence[Finalist]) -> list[dict[str, str]]:
    return verdict_rows({one.name: one.statistics for one in finalists}, plan.objectives[0]) if finalists else []


def _show_verdict(console: Console, plan: SearchPlan, finalists: Sequence[Finalist]) -> None:
    if not finalists:
        return
    console.print()
    shown = {
        one.name: one.first_evaluation
        for one in finalists
        if one.name in (DEFAULT, BEST) and one.first_evaluation is not None
    }
    if shown:
        console.print(table_of(shown, title=f"Verdict on the test classes, seed {plan.base.seed}"))
    rows = _rows(plan, finalists)
    console.print(verdict_table(rows, title="Verdict over all seeds"))
    for line in difference_lines(rows):
        console.print(line, highlight=False)
    if len(finalists) == 1:
        console.print("The default configuration is the best one that was found.")
