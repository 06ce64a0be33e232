"""Your own images: a table (Parquet or CSV) that lists them."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from colotride.data.base import ImageSet
from colotride.data.files import FileImages
from colotride.data.source import Source, missing
from colotride.errors import DataError

LAYOUT = "give a Parquet or CSV file with the columns path, label and (to train) split, which says train or test"


def manifest(root: Path, stored_size: int) -> Source:
    """A Parquet or CSV file at ROOT with the columns `path`, `label` and, optionally, `split`.

    Paths are relative to the table's folder. Labels may be names or numbers; they are numbered from 0 in the order of
    all labels. Without `split` every image belongs to the test side. Where no label is on both sides the set is
    zero-shot: whole classes are held out to validate.

    Raises:
        DataError: no such file, not such a table, or a value of `split` other than train and test; when a side is
            read: it is empty, or a listed image is not there.
    """
    if not root.is_file():
        raise missing("manifest", root, LAYOUT)
    table = _read(root)
    labels = table["label"].to_pylist()
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    names = {number: str(label) for label, number in numbers.items()}
    sides: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    splits = table["split"].to_pylist() if "split" in table.column_names else ["test"] * len(labels)
    for path, label, split in zip(table["path"].to_pylist(), labels, splits, strict=True):
        if split not in sides:
            raise DataError(f"manifest {root} puts {path} into split {split!r}; write train or test")
        sides[split].append((root.parent / path, numbers[label]))
    trained, tested = ({label for _, label in sides[side]} for side in ("train", "test"))
    return Source(
        train=partial(_part, root, "train", sides["train"], names, stored_size),
        test=partial(_part, root, "test", sides["test"], names, stored_size),
        zero_shot=not trained & tested,
    )


def _read(path: Path) -> pa.Table:
    try:
        table = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"manifest {path} cannot be read ({' '.join(str(error).split())}); {LAYOUT}") from None
    absent = {"path", "label"} - set(table.column_names)
    if absent:
        raise DataError(f"manifest {path} has no column {', '.join(sorted(absent))}; {LAYOUT}")
    for name in ("path", "label"):
        if pc.any(pc.is_null(table[name])).as_py():
            raise DataError(f"manifest {path} has rows without {name}; fill or remove them")
    return table


def _part(table: Path, side: str, rows: list[tuple[Path, int]], names: dict[int, str], stored_size: int) -> ImageSet:
    if not rows:
        raise DataError(f"manifest {table} lists no image of split {side}; {LAYOUT}")
    absent = next((path for path, _ in rows if not path.is_file()), None)
    if absent is not None:
        raise DataError(f"manifest {table} lists {absent}, which is not there; mend its path or remove the row")
    paths, labels = [path for path, _ in rows], [label for _, label in rows]
    return FileImages(f"manifest/{side}", paths, labels, stored_size, names)
