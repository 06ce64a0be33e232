"""Directories behind a URI: S3, Google Cloud Storage or a shared disk, through pyarrow's file systems."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import fs

BLOCK = 1 << 24
"""Bytes that are copied at a time."""

REMOTE_ERRORS = (pa.ArrowException, OSError, ValueError)
"""What a directory that cannot be reached, read or written raises; `reason_of` makes one line of it."""

OnBlock = Callable[[int], None]
"""Called with the number of blocks that were copied since its last call."""


class RemoteDirectory:
    """Files below a URI, by their names relative to it. Every method raises one of `REMOTE_ERRORS`."""

    def __init__(self, uri: str) -> None:
        """Open the file system of a URI; nothing is read or written yet.

        Args:
            uri: `s3://bucket/path`, `gs://bucket/path` or `file:///path`; credentials are found as usual for each.
        """
        self._system, root = fs.FileSystem.from_uri(uri)
        self._root = root.rstrip("/")

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is no such file."""
        found = self._system.get_file_info(f"{self._root}/{name}")
        return int(found.size) if found.type == fs.FileType.File else None

    def names(self, folder: str = "", *, directories: bool = False) -> list[str]:
        """Names of the files, or of the directories, in a folder; none where it does not exist."""
        wanted = fs.FileType.Directory if directories else fs.FileType.File
        selector = fs.FileSelector(f"{self._root}/{folder}".rstrip("/"), allow_not_found=True)
        return [entry.base_name for entry in self._system.get_file_info(selector) if entry.type == wanted]

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        with self._system.open_input_stream(f"{self._root}/{name}") as file:
            content: bytes = file.read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._created(name) as file:
            file.write(content)

    def upload(self, source: Path, name: str, on_block: OnBlock | None = None) -> None:
        """Copy a local file to a name."""
        with source.open("rb") as file, self._created(name) as target:
            _copy(file, target, on_block)

    def download(self, name: str, target: Path, on_block: OnBlock | None = None) -> None:
        """Copy a file to a local path; it is on the disk when this returns, and the path is never half a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".partial-{target.name}")
        try:
            with self._system.open_input_stream(f"{self._root}/{name}") as source, partial.open("wb") as file:
                _copy(source, file, on_block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._system.delete_file(f"{self._root}/{name}")

    def delete_directory(self, name: str) -> None:
        """Delete a directory and all that is in it."""
        self._system.delete_dir(f"{self._root}/{name}")

    def _created(self, name: str) -> pa.NativeFile:
        path = f"{self._root}/{name}"
        self._system.create_dir(path.rpartition("/")[0], recursive=True)
        return self._system.open_output_stream(path)


def blocks_of(size: int) -> int:
    """Number of blocks in which a file of this many bytes is copied."""
    return -(-size // BLOCK)


def reason_of(error: BaseException) -> str:
    """An error of a remote directory in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _copy(source: IO[bytes] | pa.NativeFile, target: IO[bytes] | pa.NativeFile, on_block: OnBlock | None) -> None:
    while block := source.read(BLOCK):
        target.write(block)
        if on_block:
            on_block(1)
