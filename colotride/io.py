"""Reads of regular files only, and writes that leave either the old file or the new one, never half of it."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from colotride.disk import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LARGEST_TEXT = 1 << 28
"""Bytes of the largest configuration, table or record that is read; a larger one is something else."""


def read_file(path: Path, *, most: int | None = LARGEST_TEXT) -> bytes:
    """The content of a regular file. Anything else could block, as a named pipe does, or never end.

    Args:
        path: of the file, or of a link to it.
        most: bytes that it may have; None for any number.

    Raises:
        OSError: it is not there, is not a regular file, is too large or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file")
    size = path.stat().st_size
    if most is not None and size > most:
        raise OSError(f"{path} has {size:,} bytes, which is more than {most:,}")
    return path.read_bytes()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it and a rename; parent folders are made.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is untouched.
    """
    with one_line(path):
        _write(path, content)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder that appears whole or not at all: the block fills a temporary one beside it, which is renamed at the end.

    Args:
        folder: that does not exist; its parents are made.

    Raises:
        StorageError: the disk is full or not writable.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with one_line(folder):
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name as long as the file system allows has no room for what a temporary one adds.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}"[:100] + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_figure(figure: "Figure", path: Path, *, dpi: int = 130, tight: bool = False) -> Path:
    """Write a matplotlib figure atomically, in the format that the path's suffix names; returns the path.

    Args:
        figure: to write.
        path: ends in .png, .svg or .pdf.
        dpi: dots per inch of a PNG.
        tight: whether the picture is cut to what is drawn, with what lies outside the axes.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is untouched.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=dpi, bbox_inches="tight" if tight else None)
    write_atomically(path, buffer.getvalue())
    return path


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
