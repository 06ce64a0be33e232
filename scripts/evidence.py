"""The tables of docs/evidence.md about photographs, computed again from the runs in docs/results.

python scripts/evidence.py
python scripts/evidence.py fill
python scripts/evidence.py draw
python scripts/evidence.py add RUN --label "Relative COLO-TRIDE" --settings "--defense colo-tride-relative"
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from pyarrow import parquet

from colotride.config import load_config
from colotride.evaluation.results import ATTACKED, load_evaluation
from colotride.evaluation.scores import resistance_of, scores_of
from colotride.io import save_figure, write_atomically
from colotride.markdown import table
from colotride.reproduction.figures import draw_curves
from colotride.training.records import EpochRecord
from colotride.tune.seed_statistics import paired_difference

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "photographs.json"

PAGE = RESULTS.parents[1] / "evidence.md"

SCORES = ("R@1", "ARS", "ERS", "ES:R", "mAP")

PAIRS = (
    ("Relative COLO-TRIDE, longer", "ACT, longer"),
    ("Relative COLO-TRIDE, longer, growing steps, clean weight 0.25, interpolated", "HM, longer"),
    ("Relative COLO-TRIDE, longer", "naive SIP"),
    ("Relative COLO-TRIDE, longer, growing steps, clean weight 0.25", "ACT, longer"),
    ("Relative COLO-TRIDE, longer, growing steps", "Relative COLO-TRIDE, longer"),
    ("Relative COLO-TRIDE, longer, growing steps", "ACT, longer"),
    ("COLO-TRIDE, margin 0.4, longer, growing steps", "ACT, longer"),
    ("COLO-TRIDE, margin 0.4, longer, growing steps", "ACT, margin 0.4, growing steps"),
    ("COLO-TRIDE, margin 0.4, longer, growing steps", "ACT, margin 0.4, longer, growing steps"),
    ("Relative COLO-TRIDE, longer, growing steps", "ACT, margin 0.4, growing steps"),
    ("ACT, margin 0.4, growing steps", "ACT, longer"),
    ("Relative COLO-TRIDE, longer, growing steps", "COLO-TRIDE, margin 0.4, longer, growing steps"),
    ("Relative COLO-TRIDE, longer", "ACT"),
    ("Relative COLO-TRIDE", "ACT"),
    ("Relative COLO-TRIDE", "COLO-TRIDE"),
    ("Relative COLO-TRIDE", "COLO-TRIDE, margin 0.4"),
)
"""Rows that are compared, first less second."""

PICTURED = ("no defense", "ACT, longer", "COLO-TRIDE", "Relative COLO-TRIDE, longer")
"""Rows whose epochs are drawn."""

FAMILIES = ("no defense", "ACT", "HM", "naive", "Relative", "COLO-")
"""Begin the labels of rows that are drawn in one colour."""

Runs = Sequence[dict[str, Any]]


def load(path: Path = RESULTS) -> Runs:
    """The runs, in the order of the rows."""
    runs: Runs = json.loads(path.read_text())["runs"]
    return runs


def add(run: Path, label: str, settings: str, parts: Sequence[Path] = (), results: Path = RESULTS) -> None:
    """Keep a run that was trained and evaluated: its scores, its epochs, and the values of every attacked image.

    Args:
        run: its folder.
        label: of its row; a run of the same label and seed is replaced.
        settings: that it was trained with beside the command of the page.
        parts: folders of the runs between which it lies, where it was interpolated; it costs what they cost together.
        results: where the runs are kept.
    """
    config, evaluation = load_config(run / "config.yaml"), load_evaluation(run / "evaluation")
    trainings = [
        [json.loads(line) for line in (one / "history.jsonl").read_text().splitlines()] for one in parts or (run,)
    ]
    epochs = [] if parts else trainings[0]
    own = {
        "label": label,
        "settings": settings,
        "seed": config.seed,
        "batches": sum(training[-1]["step"] for training in trainings),
        "passes": sum(epoch["passes"] for training in trainings for epoch in training),
        "seconds": round(sum(epoch["seconds"] for training in trainings for epoch in training)),
        "scores": {name: round(value, 4) for name, value in evaluation.scores().items()},
        "epochs": [{name: round(value, 5) for name, value in epoch["diagnostics"].items()} for epoch in epochs],
    }
    kept = json.loads(results.read_text())
    others = [one for one in kept["runs"] if (one["label"], one["seed"]) != (label, config.seed)]
    labels = list(dict.fromkeys([*(one["label"] for one in kept["runs"]), label]))
    kept["runs"] = sorted([*others, own], key=lambda one: (labels.index(one["label"]), one["seed"]))
    values = values_of(own, results)
    values.parent.mkdir(exist_ok=True)
    shutil.copyfile(run / "evaluation" / ATTACKED, values)
    write_atomically(results, (json.dumps(kept, indent=1) + "\n").encode())


def draw(runs: Runs, folder: Path) -> list[Path]:
    """Draw what is retrieved against what withstands, and Figures 3 and 4 of the paper, from the kept runs."""
    histories = {
        label: [
            [EpochRecord(number, 0, 0.0, dict(epoch)) for number, epoch in enumerate(run["epochs"], 1)]
            for run in runs
            if run["label"] == label
        ]
        for label in PICTURED
    }
    pictures = [draw_trade_off(runs, folder / "photographs-trade-off.png")]
    titles = {"figure3": "Caltech-101: the state of the embedding", "figure4": "Caltech-101: what perturbations move"}
    return pictures + [
        path
        for what, title in titles.items()
        for path in draw_curves(histories, what, folder / f"photographs-{what}", title, [".png"])
    ]


def draw_trade_off(runs: Runs, path: Path) -> Path:
    """Draw R@1 against ARS, a number for each way to train, all of its seeds; a row's area is its cost in passes."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    axis = figure.subplots()
    labels = list(dict.fromkeys(run["label"] for run in runs))
    for number, label in enumerate(labels, 1):
        own = [run for run in runs if run["label"] == label]
        family = next((at for at, prefix in enumerate(FAMILIES) if label.startswith(prefix)), len(FAMILIES))
        points = [[run["scores"][name] for run in own] for name in ("R@1", "ARS")]
        area = 20 + 300 * statistics.mean(run["passes"] for run in own) / 1e6
        axis.scatter(
            points[0], points[1], s=area, color=f"C{family}", alpha=0.45, linewidths=0, label=f"{number}  {label}"
        )
        middle = [statistics.mean(values) for values in points]
        axis.annotate(str(number), (middle[0], middle[1]), fontsize=8, ha="center", va="center")
    axis.set(xlabel="R@1 without an attack, %", ylabel="ARS")
    axis.set_title("Caltech-101", fontsize=11)
    axis.grid(alpha=0.3)
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False, markerscale=0.4
    )
    return save_figure(figure, path, dpi=140)


def values_of(run: dict[str, Any], results: Path = RESULTS) -> Path:
    """The file with the values of every attacked image of a run; the first runs have none."""
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{run['label']} {run['seed']}".lower())
    return results.parent / results.stem / f"{'-'.join(filter(None, name.split('-')))}.parquet"


def recomputed(values: Path) -> dict[str, float]:
    """The scores after the attacks, from the values of every attacked image."""
    columns = parquet.read_table(values).to_pydict()
    names = [name.removesuffix(" after") for name in columns if name.endswith(" after")]
    before, after = ({name: torch.tensor(columns[f"{name} {when}"]) for name in names} for when in ("before", "after"))
    return scores_of(before, after, resistance_of("strict"))


def score_table(runs: Runs) -> str:
    """A row per way to train: mean and standard deviation over its seeds, cost, and how the embedding shrank."""
    rows = []
    for label in dict.fromkeys(run["label"] for run in runs):
        own = [run for run in runs if run["label"] == label]
        ends = [
            statistics.mean(run["epochs"][at]["distance_anchor_positive"] for run in own if run["epochs"])
            for at in (0, -1)
            if own[0]["epochs"]
        ]
        cells = [_cell(run["scores"][name] for run in own) for name in SCORES]
        passes = statistics.mean(run["passes"] for run in own) / 1e6
        rows.append(
            [
                label,
                str(len(own)),
                f"{passes:.2f}",
                *cells,
                " to ".join(f"{end:.2f}" for end in ends),
                str(own[0]["batches"]),
            ]
        )
    return table(["defense", "seeds", "M passes", *SCORES, "d(A,P)", "batches"], rows, left=1)


def difference_table(runs: Runs) -> str:
    """Rows compared with the same seeds: the difference in ARS and R@1 with a 95 % interval where there are two seeds.

    The last column widens the interval of ARS such that those of all rows hold together with 95 % (Bonferroni).
    """
    rows = []
    seeds = {label: {run["seed"] for run in runs if run["label"] == label} for pair in PAIRS for label in pair}
    # Of every row with several seeds the intervals of ARS and of R@1.
    several = sum(len(seeds[one] & seeds[other]) > 1 for one, other in PAIRS)
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
        together = paired_difference(scores[one, "ARS"], scores[other, "ARS"], 2 * several)
        rows.append([one, other, str(len(shared)), *cells, "" if together is None else str(together)])
    return table(["defense", "less", "seeds", "ARS", "R@1", "ARS, all rows together"], rows, left=2)


def filled(page: str, runs: Runs) -> str:
    """A page whose tables with the heads of `score_table` and `difference_table` are those of the runs."""
    for made in (score_table(runs), difference_table(runs)):
        head = made.splitlines()[0]
        before, shown = page.split(head, 1)
        _, after = shown.split("\n\n", 1)
        page = f"{before}{made}\n{after}"
    return page


def _cell(values: Iterable[float]) -> str:
    numbers = list(values)
    spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{spread}"


def main() -> None:
    """Print the tables, write them into the page, draw the pictures, or take a run in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = parser.add_subparsers(dest="what")
    works.add_parser("draw", help="draw the trade-off, and Figures 3 and 4")
    works.add_parser("fill", help="write the tables into docs/evidence.md")
    adding = works.add_parser("add", help="keep a run that was trained and evaluated")
    adding.add_argument("run", type=Path)
    adding.add_argument("--label", required=True)
    adding.add_argument("--settings", default="")
    adding.add_argument("--parts", type=Path, nargs=2, default=(), help="the runs between which it was interpolated")
    given = parser.parse_args()
    if given.what == "add":
        add(given.run, given.label, given.settings, given.parts)
    found = load()
    if given.what == "fill":
        write_atomically(PAGE, filled(PAGE.read_text(), found).encode())
        print(f"written: {PAGE}")
        return
    if given.what == "draw":
        for path in draw(found, RESULTS.parents[1] / "images"):
            print(f"written: {path}")
        return
    print(score_table(found))
    print(difference_table(found))


if __name__ == "__main__":
    main()
