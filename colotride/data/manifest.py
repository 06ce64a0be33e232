"""Your own images: a table (Parquet or CSV) that lists them."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from colotride.data.base import ImageSet, Source, missing
from colotride.data.files import FileImages
from colotride.data.progress import notify
from colotride.errors import DataError
from colotride.registry import register_dataset

LAYOUT = "give a Parquet or CSV file with the columns path, label and (to train) split, which says train or test"
NAMED = 3
"""How many paths a message names."""


@register_dataset("manifest")
def manifest(root: Path, stored_size: int) -> Source:
    """A Parquet or CSV file at ROOT with the columns `path`, `label` and, optionally, `split`.

    Paths are relative to the table's folder. Labels may be names or numbers; they are numbered from 0 in the order of
    all labels. Without `split` every image belongs to the test side. Where no label is on both sides the set is
    zero-shot: whole classes are held out to validate.

    A file in both splits is refused, because the test would see a training image. A file that is listed twice in one
    split, in one class or in two, is kept as often as it is listed, and named in a warning when the split is read.

    Raises:
        DataError: no such file, not such a table, a value of `split` other than train and test, or a file in both
            splits; when a side is read: it is empty, or a listed image is not there.
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
        sides[split].append((Path(os.path.normpath(root.parent / path)), numbers[label]))
    trained, tested = ({path for path, _ in sides[side]} for side in ("train", "test"))
    if both := sorted(trained & tested):
        raise DataError(f"manifest {root} has {_named(both)} in both splits, train and test; keep each in one")
    train_labels, test_labels = ({label for _, label in sides[side]} for side in ("train", "test"))
    return Source(
        train=partial(_part, root, "train", sides["train"], names, stored_size),
        test=partial(_part, root, "test", sides["test"], names, stored_size),
        zero_shot=not train_labels & test_labels,
    )


def _read(path: Path) -> pa.Table:
    try:
        table = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.ParquetFile(path).read()
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"manifest {path} cannot be read ({' '.join(str(error).split())}); {LAYOUT}") from None
    absent = {"path", "label"} - set(names)
    if absent:
        raise DataError(f"manifest {path} has no column {', '.join(sorted(absent))}; {LAYOUT}")
    for name in ("path", "label", "split"):
        if names.count(name) > 1:
            raise DataError(f"manifest {path} has {names.count(name)} columns {name}; keep one")
        if name in names:
            _check_column(path, name, table[name])
    return table


def _check_column(path: Path, name: str, column: pa.ChunkedArray) -> None:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if name != "split" and pc.any(pc.is_null(column)).as_py():
        raise DataError(f"manifest {path} has rows without {name}; fill or remove them")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"column {name} of manifest {path} is not UTF-8 text; save the table as UTF-8")
    # An empty table has columns of no type; the side that is read says that it is empty.
    if is_text or not len(column) or (name == "label" and (pa.types.is_integer(kind) or pa.types.is_floating(kind))):
        return
    raise DataError(
        f"column {name} of manifest {path} has values of type {kind}; "
        f"give {'text or numbers' if name == 'label' else 'text'}"
    )


def _part(table: Path, side: str, rows: list[tuple[Path, int]], names: dict[int, str], stored_size: int) -> ImageSet:
    if not rows:
        raise DataError(f"manifest {table} lists no image of split {side}; {LAYOUT}")
    absent = next((path for path, _ in rows if not os.path.isfile(path)), None)
    if absent is not None:
        raise DataError(
            f"manifest {table} lists {absent}, which is not a file that is there; correct or remove the row"
        )
    _warn_of_repetitions(table, side, rows)
    return FileImages(f"manifest/{side}", [path for path, _ in rows], [label for _, label in rows], stored_size, names)


def _warn_of_repetitions(table: Path, side: str, rows: list[tuple[Path, int]]) -> None:
    classes: dict[Path, set[int]] = {}
    for path, label in rows:
        classes.setdefault(path, set()).add(label)
    if several := sorted(path for path, found in classes.items() if len(found) > 1):
        notify(f"warning: manifest {table} has {_named(several)} in more than one class of split {side}")
    times = Counter(rows)
    if doubled := sorted({path for (path, _), count in times.items() if count > 1}):
        notify(f"warning: manifest {table} lists {_named(doubled)} more than once in split {side}")


def _named(paths: list[Path]) -> str:
    rest = len(paths) - NAMED
    return ", ".join(map(str, paths[:NAMED])) + (f" and {rest} more" if rest > 0 else "")
