"""What an evaluation returns: its numbers, and how they are shown, written and read again."""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from colotride.documents import read_json
from colotride.errors import DataError
from colotride.evaluation.record import EvaluationRecord
from colotride.io import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ATTACKED, BENIGN, CLASSES = "attacked.parquet", "benign.parquet", "classes.parquet"
RESULT = "evaluation.json"


@dataclass(frozen=True)
class Evaluation(EvaluationRecord):
    """The result of one evaluation: its numbers, and what draws them; percentages and ranks are in 0..100."""

    # What draws is imported where it is asked for: matplotlib takes longer to come up than a small evaluation.

    def to_frame(self) -> "pd.DataFrame":
        """Every score with its interval as a table; see `presentation.frame_of`."""
        from colotride.evaluation.presentation import frame_of

        return frame_of(self)

    def plot(self) -> "Figure":
        """Resistances, ARS and ERS as a figure of matplotlib; see `presentation.figure_of`."""
        from colotride.evaluation.presentation import figure_of

        return figure_of(self)

    def report(self, path: str | PathLike[str], *, title: str = "model", dataset: str = "the gallery") -> Path:
        """Write the report, one HTML file that needs nothing beside it.

        Args:
            path: of the file.
            title: name of the model.
            dataset: name of the image set.
        """
        from colotride.evaluation.report import write_report

        write_report(Path(path), self, title=title, dataset=dataset)
        return Path(path)


def save_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write a result as `evaluation.json`, and the values behind it as three Parquet tables, atomically.

    `attacked.parquet` has a row per attacked image: its place in the gallery, its class, and of every attack number
    the target and the values before and after. `benign.parquet` has a row per image of the gallery,
    and `classes.parquet` a row per class, with its scores.

    Returns:
        The path of the JSON file.
    """
    if evaluation.per_query:
        first = next(iter(evaluation.per_query.values()))["query"]
        attacked = {"query": first, "label": evaluation.per_image["label"][first]}
        for name, values in evaluation.per_query.items():
            attacked |= {f"{name} {what}": values[what] for what in ("target", "before", "after")}
        _write_table(attacked, folder / ATTACKED)
        _write_table({"image": torch.arange(evaluation.images), **evaluation.per_image}, folder / BENIGN)
        _write_table(evaluation.class_scores(), folder / CLASSES)
    path = folder / RESULT
    write_atomically(path, (json.dumps(evaluation.to_dict(), indent=2) + "\n").encode())
    return path


def load_evaluation(folder: Path) -> Evaluation:
    """Read back what `save_evaluation` wrote, single images included where their tables are there.

    Raises:
        DataError: a file is damaged.
    """
    path = folder / RESULT
    try:
        plain = Evaluation.from_dict(read_json(path, "evaluation", DataError))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is not an evaluation ({error!r}); remove it and evaluate again") from None
    if not (folder / ATTACKED).is_file():
        return plain
    attacked, benign = (_read_table(folder / name) for name in (ATTACKED, BENIGN))
    per_query = {
        name: {
            "query": attacked["query"],
            **{what: attacked[f"{name} {what}"] for what in ("target", "before", "after")},
        }
        for name in plain.attacked
    }
    del benign["image"]
    plain.per_query.update(per_query)
    plain.per_image.update(benign)
    return plain


def _write_table(columns: dict[str, Tensor], path: Path) -> None:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({name: values.numpy() for name, values in columns.items()}), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def _read_table(path: Path) -> dict[str, Tensor]:
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read ({reason}); remove the folder and evaluate again") from None
    return {name: torch.from_numpy(table[name].to_numpy().copy()) for name in table.column_names}
