"""Results of several seeds as tables: mean and spread, with the paper's number beside them."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from colotride.evaluation.scores import ATTACK_COLUMNS, RESISTANCE_COLUMNS
from colotride.markdown import printable, table
from colotride.reproduction.paper import paper_row

LAST_EPOCH = (
    "distance_anchor_positive",
    "distance_anchor_negative",
    "separability",
    "collapseness",
    "perturbed_collapseness",
    "assist",
)
"""Diagnostics whose value in the last epoch stands in the table of the readings."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "table1": ("R@1", "R@2", "mAP", "NMI", *ATTACK_COLUMNS, "ERS"),
    "table2": ("R@1", "R@2", "mAP", "NMI", *(f"ARS {name}" for name in RESISTANCE_COLUMNS), "ARS"),
    "table3": ("R@1", *(f"ARS {name}" for name in RESISTANCE_COLUMNS), "ERS", "ARS"),
    "table4": ("R@1", "ERS", "ARS"),
    "readings": ("R@1", "ERS", "ARS", *LAST_EPOCH),
}

OTHERWISE = ("R@1", "mAP", "NMI", *ATTACK_COLUMNS, "ERS", "ARS")
"""Columns of everything that is not one of the paper's tables."""

BESIDE = ("R@1", "ERS", "ARS")
"""Scores whose printed value stands beside ours."""


@dataclass(frozen=True)
class SeedResult:
    """One trained model of a row."""

    label: str
    seed: int
    status: str
    """finished, collapsed, nan or diverged."""
    epochs: int
    seconds: float
    """Of training."""
    scores: Mapping[str, float]
    """Empty where the model could not be evaluated."""


def summarise(results: Sequence[SeedResult], what: str, dataset: str) -> list[dict[str, object]]:
    """One dictionary per row of a table.

    It holds the label, how the seeds ended, mean and standard deviation of every column, and what the paper printed
    (`paper R@1`, `paper ERS`, `paper ARS`; absent where it printed nothing).
    """
    summary: list[dict[str, object]] = []
    for label in dict.fromkeys(result.label for result in results):
        seeds = [result for result in results if result.label == label]
        row: dict[str, object] = {"defense": label, "seeds": len(seeds), "ended": _ends(seeds)}
        row["training s"] = round(statistics.mean(result.seconds for result in seeds), 1)
        for column in COLUMNS.get(what, OTHERWISE):
            values = [result.scores[column] for result in seeds if column in result.scores]
            if values:
                row[column] = statistics.mean(values)
                row[f"{column} sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        printed = paper_row(dataset, label)
        row |= {f"paper {name}": printed[name] for name in BESIDE if name in printed}
        summary.append(row)
    return summary


def markdown(summary: Sequence[Mapping[str, object]], what: str) -> str:
    """The summary as a Markdown table; `mean ± standard deviation` where a row has several seeds."""
    columns = COLUMNS.get(what, OTHERWISE)
    beside = [name for name in BESIDE if any(f"paper {name}" in row for row in summary)]
    heads = ["defense", "ended", *columns, *(f"paper {name}" for name in beside), "training s"]
    rows = []
    for row in summary:
        cells = [str(row["defense"]), str(row["ended"])]
        cells += [_cell(row, column) for column in columns]
        cells += [str(row.get(f"paper {name}", "")) for name in beside]
        rows.append([*cells, f"{row['training s']:.0f}"])
    return table(heads, rows, left=2)


def short_table(summary: Sequence[Mapping[str, object]]) -> Table:
    """The scores that fit a terminal, ours and the printed ones."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    beside = [f"paper {name}" for name in BESIDE if any(f"paper {name}" in row for row in summary)]
    for head in ("defense", "ended"):
        shown.add_column(head, overflow="fold")
    for head in (*BESIDE, *beside):
        shown.add_column(head, justify="right", no_wrap=True)
    for row in summary:
        ours = (_cell(row, name) for name in BESIDE)
        shown.add_row(
            Text(printable(str(row["defense"]))), str(row["ended"]), *ours, *(str(row.get(name, "")) for name in beside)
        )
    return shown


def comma_separated(summary: Sequence[Mapping[str, object]]) -> str:
    """The summary as CSV, one column per mean, standard deviation and printed value."""
    heads = list(dict.fromkeys(name for row in summary for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(summary)
    return buffer.getvalue()


def _ends(seeds: Sequence[SeedResult]) -> str:
    counts = {status: sum(result.status == status for result in seeds) for status in {r.status for r in seeds}}
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _cell(row: Mapping[str, object], column: str) -> str:
    value, spread = row.get(column), row.get(f"{column} sd")
    if not isinstance(value, float) or not isinstance(spread, float):
        return ""
    digits = 3 if column in LAST_EPOCH else 2 if column in ("TMA", "ES:D") else 1
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if row["seeds"] != 1 else "")
