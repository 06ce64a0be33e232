"""A file to which evaluations are appended, one JSON object per line, and the table that is made from it."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from colotride import markdown
from colotride.errors import DataError
from colotride.evaluation.record import EvaluationRecord
from colotride.evaluation.scores import HEADLINE_SCORES
from colotride.io import write_atomically
from colotride.locking import owned

PATIENCE = 60.0
"""Seconds to wait for another evaluation that is being added."""


class Entry(BaseModel):
    """An evaluation on a leaderboard: the fields that the table needs, and whatever else the line holds."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    model: str
    dataset: str
    protocol: str
    epsilon: FiniteFloat
    steps: int
    queries: int
    benign: dict[str, FiniteFloat]
    ERS: FiniteFloat
    ARS: FiniteFloat
    intervals: dict[str, list[FiniteFloat]]
    norm: str = "linf"
    resistance_definition: str = "mean of ratios"


def append(path: Path, evaluation: EvaluationRecord, *, model: str, dataset: str) -> None:
    """Add an evaluation; what is there already stays, byte for byte.

    Args:
        path: of the file; made when it is missing.
        evaluation: to add.
        model: what to call it.
        dataset: on which images.
    """
    entry = {"model": model, "dataset": dataset, **evaluation.to_dict()}
    # Two evaluations that end together would each write back what it had read.
    with owned(path, "leaderboard", lock=path.with_name(f".{path.name}.lock"), seconds=PATIENCE):
        before = path.read_bytes() if path.is_file() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        write_atomically(path, before + (json.dumps(entry) + "\n").encode())


def read(path: Path) -> list[Entry]:
    """The entries of a leaderboard.

    Raises:
        DataError: no such file, or a line that is not an evaluation, named by its number.
    """
    if not path.is_file():
        raise DataError(f"leaderboard {path} is not there; append to it with colotride evaluate --leaderboard {path}")
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError:
            raise DataError(f"leaderboard {path}, line {number}, is not an evaluation; remove the line") from None
    return entries


def tables(entries: Sequence[Entry]) -> str:
    """One Markdown table per data set and way of attacking, the best ARS first; only those are comparable."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        radius = f"epsilon {round(entry.epsilon * 255, 1):g}/255"
        if entry.norm != "linf":
            radius = f"{entry.norm} epsilon {entry.epsilon:g}"
        heading = (
            f"{entry.dataset}, {entry.protocol} protocol, {radius}, {entry.steps} steps, "
            f"ARS as a {entry.resistance_definition}"
        )
        groups.setdefault(heading, []).append(entry)
    blocks = []
    for heading, group in groups.items():
        rows = [
            [entry.model, *(_cell(entry, name) for name in HEADLINE_SCORES), str(entry.queries)]
            for entry in sorted(group, key=lambda entry: -entry.ARS)
        ]
        header = ["model", *HEADLINE_SCORES, "queries"]
        blocks.append(f"### {markdown.escape(heading)}\n\n{markdown.table(header, rows)}")
    return "\n".join(blocks)


def _cell(entry: Entry, name: str) -> str:
    value = {**entry.benign, "ERS": entry.ERS, "ARS": entry.ARS}.get(name)
    if value is None:
        return ""
    interval = entry.intervals.get(name)
    return f"{value:.1f}" + (f" ({interval[0]:.1f} to {interval[-1]:.1f})" if interval else "")
