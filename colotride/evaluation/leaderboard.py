"""A file to which evaluations are appended, one JSON object per line, and the table that is made from it."""

import json
from pathlib import Path
from typing import Any

from colotride.errors import DataError
from colotride.evaluation.results import Evaluation
from colotride.evaluation.scores import HEADLINE_SCORES
from colotride.io import write_atomically


def append(path: Path, evaluation: Evaluation, *, model: str, dataset: str) -> None:
    """Add an evaluation; what is there already stays, byte for byte.

    Args:
        path: of the file; made when it is missing.
        evaluation: to add.
        model: what to call it.
        dataset: on which images.
    """
    before = path.read_bytes() if path.is_file() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    entry = {"model": model, "dataset": dataset, **evaluation.to_dict()}
    write_atomically(path, before + (json.dumps(entry) + "\n").encode())


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a leaderboard.

    Raises:
        DataError: no such file, or a line that is not an evaluation, named by its number.
    """
    if not path.is_file():
        raise DataError(f"leaderboard {path} is not there; append to it with scripts/evaluate.py --leaderboard {path}")
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            Evaluation.from_dict({name: value for name, value in entry.items() if name not in ("model", "dataset")})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DataError(f"leaderboard {path}, line {number}, is not an evaluation; remove the line") from None
        entries.append(entry)
    return entries


def markdown(entries: list[dict[str, Any]]) -> str:
    """One Markdown table per data set and way of attacking, the best ARS first; only those are comparable."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        size = round(entry["epsilon"] * 255, 1)
        norm = entry.get("norm", "linf")
        radius = f"epsilon {size:g}/255" if norm == "linf" else f"{norm} epsilon {entry['epsilon']:g}"
        definition = entry.get("resistance_definition", "mean of ratios")
        heading = (
            f"{entry['dataset']}, {entry['protocol']} protocol, {radius}, {entry['steps']} steps, ARS as a {definition}"
        )
        groups.setdefault(heading, []).append(entry)
    blocks = []
    for heading, rows in groups.items():
        lines = [
            f"### {heading}",
            "",
            f"| model | {' | '.join(HEADLINE_SCORES)} | queries |",
            "|---" + "|---:" * 5 + "|",
        ]
        for entry in sorted(rows, key=lambda one: -one["ARS"]):
            cells = [_cell(entry, name) for name in HEADLINE_SCORES]
            lines.append(f"| {entry['model']} | {' | '.join(cells)} | {entry['queries']} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _cell(entry: dict[str, Any], name: str) -> str:
    value = entry[name] if name in entry else entry["benign"][name]
    interval = entry["intervals"].get(name)
    return f"{value:.1f}" + (f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else "")
