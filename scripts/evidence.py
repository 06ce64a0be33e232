"""The tables of docs/evidence.md about photographs, computed again from the runs in docs/results/photographs.json.

python scripts/evidence.py
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from colotride.markdown import table
from colotride.tune.seed_statistics import paired_difference

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "photographs.json"

SCORES = ("R@1", "mAP", "ES:R", "ERS", "ARS")

PAIRS = (
    ("COLO-TRIDE, relative distances, longer", "ACT, longer"),
    ("COLO-TRIDE, relative distances, longer", "ACT"),
    ("COLO-TRIDE, relative distances", "ACT"),
    ("COLO-TRIDE, relative distances", "COLO-TRIDE"),
)
"""Rows that are compared, first less second."""

Runs = Sequence[dict[str, Any]]


def load(path: Path = RESULTS) -> Runs:
    """The runs, in the order of the rows."""
    runs: Runs = json.loads(path.read_text())["runs"]
    return runs


def score_table(runs: Runs) -> str:
    """A row per way to train: mean and standard deviation over its seeds, cost, and how the embedding shrank."""
    rows = []
    for label in dict.fromkeys(run["label"] for run in runs):
        own = [run for run in runs if run["label"] == label]
        first, last = (statistics.mean(run["epochs"][at]["distance_anchor_positive"] for run in own) for at in (0, -1))
        cells = [_cell(run["scores"][name] for run in own) for name in SCORES]
        passes = statistics.mean(run["passes"] for run in own) / 1e6
        rows.append(
            [label, str(len(own)), str(own[0]["batches"]), f"{passes:.2f}", *cells, f"{first:.2f} to {last:.2f}"]
        )
    return table(["defense", "seeds", "batches", "M passes", *SCORES, "d(A,P)"], rows, left=1)


def difference_table(runs: Runs) -> str:
    """Rows compared with the same seeds: the difference in ARS and R@1 with a 95 % interval where there are two seeds."""
    rows = []
    for one, other in PAIRS:
        scores = {
            (label, name): {run["seed"]: run["scores"][name] for run in runs if run["label"] == label}
            for label in (one, other)
            for name in ("ARS", "R@1")
        }
        shared = scores[one, "ARS"].keys() & scores[other, "ARS"].keys()
        if not shared:
            continue
        cells = []
        for name in ("ARS", "R@1"):
            left, right = scores[one, name], scores[other, name]
            found = paired_difference(left, right)
            cells.append(str(found) if found else f"{statistics.mean(left[s] - right[s] for s in shared):+.1f}")
        rows.append([one, other, str(len(shared)), *cells])
    return table(["defense", "less", "seeds", "ARS", "R@1"], rows, left=2)


def _cell(values: Iterable[float]) -> str:
    numbers = list(values)
    spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{spread}"


if __name__ == "__main__":
    found = load()
    print(score_table(found))
    print(difference_table(found))
