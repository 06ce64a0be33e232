"""What a search ends with: tables for people, JSON for programs, and how to continue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from colotride.evaluation.table import table_of
from colotride.tracking.export import DEFAULT_URI, absolute
from colotride.tracking.model_registry import CHAMPION
from colotride.tune.api import SearchResult
from colotride.tune.final_evaluation import BEST, Finalist, verdict_sentences
from colotride.tune.plan import SearchPlan
from colotride.tune.progress import trial_table, value_text
from colotride.tune.race import race_rows, race_table
from colotride.tune.seed_statistics import DEFAULT, verdict_rows, verdict_table


def show_interrupted(console: Console, result: SearchResult) -> None:
    """Show the trials so far, and how to continue."""
    plan, folder = result.plan, result.directory
    console.print(trial_table(result.trials, plan.space, plan.objectives[0], title="Interrupted; trials so far"))
    show_resumption(console, folder)


def show_resumption(console: Console, folder: Path) -> None:
    """Show how to continue an interrupted search."""
    console.print(
        f"Nothing is lost. Continue with:\n  colotride search --results {folder.parent} --resume {folder.name}",
        soft_wrap=True,
    )


def show_summary(console: Console, result: SearchResult) -> None:
    """Show what was found, and where it is."""
    plan, folder, best = result.plan, result.directory, result.best_trial
    objective = plan.objectives[0]
    title = "Trials, scores in % on the held-out training classes (in brackets: earlier, with fewer queries)"
    console.print(trial_table(result.trials, plan.space, objective, title=title))
    if len(plan.objectives) > 1:
        title = f"Pareto front of {' and '.join(plan.objectives)}"
        console.print(trial_table(result.front, plan.space, objective, title=title))
    if result.contenders:
        console.print(race_table(result.contenders, objective))
    console.print(Text.assemble("\n", ("Best configuration", "bold"), f" (trial {best.number}):"))
    for name, value in best.values.items():
        default = value_text(result.trials[0].values.get(name))
        console.print(f"  {name.replace('_', ' '):<26}{value_text(value):>9}   (default {default})")
    _show_verdict(console, plan, result.finalists)
    files = "report.html, figures/, best.yaml, trials.json" + (", verdict/" if result.finalists else "")
    console.print(f"\nResults     {folder}  ({files})", soft_wrap=True)
    console.print(f"Train it    colotride train --config {folder / 'best.yaml'}", soft_wrap=True)
    if result.model is not None:
        console.print(f"Use it      models:/{result.model}@{CHAMPION}, the best model of this name in MLflow")
    local = result.tracking_uri == absolute(DEFAULT_URI)
    opened = "make ui" if local else f"mlflow ui --backend-store-uri {result.tracking_uri}"
    console.print(f"Compare     {opened}, then {result.mlflow_page}", soft_wrap=True)


def as_json(result: SearchResult) -> dict[str, Any]:
    """The same for a program."""
    return {
        "folder": str(result.directory),
        "best": result.best_trial.plain(),
        "race": race_rows(result.contenders),
        "front": [record.number for record in result.front],
        "verdict": {
            one.name: {"scores": one.statistics.scores, "lost": list(one.statistics.lost)} for one in result.finalists
        },
        "table": _rows(result.plan, result.finalists),
        "sentences": verdict_sentences(result.plan, result.finalists),
    }


def _rows(plan: SearchPlan, finalists: Sequence[Finalist]) -> list[dict[str, str]]:
    statistics = {one.name: one.statistics for one in finalists}
    return verdict_rows(statistics, plan.objectives, plan.comparisons) if finalists else []


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
    console.print(verdict_table(_rows(plan, finalists), title="Verdict over all seeds"))
    for line in verdict_sentences(plan, finalists):
        console.print(line)
    if len(finalists) == 1:
        console.print("The default configuration is the best one that was found.")
