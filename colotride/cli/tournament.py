"""The command `colotride tournament`: every defense searched at the same cost, and the best of each compared."""

import json

from rich import box
from rich.table import Table
from rich.text import Text

from colotride.cli.configuration import run_config
from colotride.cli.options.shared import RunOptions
from colotride.cli.options.tournament import Tournament
from colotride.markdown import printable
from colotride.terminal import Terminal
from colotride.tournaments.plan import new_tournament
from colotride.tournaments.results import match_rows, rows, sentence, volume_rows
from colotride.tournaments.run import run_tournament
from colotride.tune.resources import TrialResources

CHOICES = ("defenses", "steps", "cost", "trials", "finalists", "seeds", "seed")


def main(options: Tournament) -> int:
    """Run the tournament that the options describe, or continue it."""
    given = options.model_fields_set
    shared = RunOptions.model_validate(
        {name: getattr(options, name) for name in given if name in RunOptions.model_fields}
    )
    choices = {name: getattr(options, name) for name in CHOICES if name in given}
    plan = new_tournament(run_config(shared), **choices)
    device = options.device if options.gpus_per_run or options.device != "auto" else "cpu"
    resources = TrialResources(options.cpus_per_run, options.gpus_per_run, options.concurrent, device=device)
    folder = options.results / (options.name or plan.base.data.name)
    console = Terminal(stderr=options.as_json)
    result = run_tournament(plan, folder, console, resources, options.tracking_uri)
    found, reference = result.finalists, plan.reference
    if options.as_json:
        print(
            json.dumps(
                {
                    "sentence": sentence(found, reference),
                    "finalists": rows(found),
                    "hypervolume": volume_rows(found, reference),
                    "matches": match_rows(found, reference),
                    "report": str(result.report),
                }
            )
        )
        return 0
    narrow = ("defense", "trial", "R@1", "ERS", "ARS", "M passes")
    console.print(_table("Finalists on the test classes", [{k: row[k] for k in narrow} for row in rows(found)]))
    console.print(_table("Share below the front of R@1 and ARS, %", volume_rows(found, reference)))
    console.print(sentence(found, reference), soft_wrap=True)
    console.print(f"report: {result.report}", soft_wrap=True)
    return 0


def _table(title: str, body: list[dict[str, str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for number, column in enumerate(body[0]):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in body:
        table.add_row(*(Text(printable(cell)) for cell in row.values()))
    return table
