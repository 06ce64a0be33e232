"""The file of an image store: Arrow IPC, one batch, one row of 8-bit pixels per image, described in its metadata."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FORMAT = 1
CHUNK = 256
"""Images whose pixels are decoded, and checked, as one piece."""

KEY = b"colotride"


class StoreDefectError(Exception):
    """Why a file cannot serve as the store that is asked for, as the end of a sentence about it."""


@dataclass(frozen=True)
class Header:
    """What a store says about itself."""

    images: str
    """Name of the set and its part ("cub/train")."""
    stored_size: int
    """Side in pixels."""
    rule: str
    """How files became pixels."""
    source: str
    """Digest of what the store was made from."""
    shape: tuple[int, int, int, int]
    """Images, channels, height, width."""
    checksum: str = ""
    """SHA-256 of labels and pixels, chunk by chunk."""
    chunk: int = CHUNK
    """Images in a chunk."""
    format: int = FORMAT


@dataclass(frozen=True)
class Content:
    """A store that is open; its arrays are views of the mapped file."""

    header: Header
    rows: NDArray[np.uint8]
    """[images, channels, height, width]"""
    labels: NDArray[np.int64]
    """[images]"""

    def verify(self) -> None:
        """Read everything and compare it with the checksum.

        Raises:
            StoreDefectError: the content is another one.
        """
        found = checksum_of(self.labels, digests_of(self.rows, self.header.chunk))
        if found != self.header.checksum:
            raise StoreDefectError(f"has the checksum {found[:12]}, expected {self.header.checksum[:12]}")


def digest_of(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of the pixels of a chunk."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def digests_of(rows: NDArray[np.uint8], chunk: int = CHUNK) -> list[str]:
    """The digests of all chunks of a store's pixels."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest_of, (rows[start : start + chunk] for start in range(0, len(rows), chunk))))


def checksum_of(labels: NDArray[np.int64], digests: Sequence[str]) -> str:
    """The one checksum of a store from its labels and its chunks' digests, in their order."""
    whole = hashlib.sha256(np.ascontiguousarray(labels).data)
    whole.update("".join(digests).encode())
    return whole.hexdigest()


def write_store(path: Path, header: Header, rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write a store; the pixels may be a mapped file larger than memory.

    Raises:
        OSError: the disk is full or not writable; what was written is left at `path`.
    """
    pixels = pa.Array.from_buffers(pa.binary(rows[0].size), len(rows), [None, pa.py_buffer(rows)])
    metadata = {KEY: json.dumps(asdict(header)).encode()}
    schema = pa.schema([("pixels", pixels.type), ("label", pa.int64())], metadata=metadata)
    with path.open("wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch([pixels, pa.array(labels)], schema=schema))
        file.flush()
        os.fsync(file.fileno())


def read_store(path: Path) -> Content:
    """Map a store into memory; whether it is whole is judged by its ends, its columns and their lengths.

    Raises:
        StoreDefectError: no such file, truncated, or not a store of this format.
    """
    if not path.is_file():
        raise StoreDefectError("is not there")
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        fields = json.loads((batch.schema.metadata or {})[KEY])
        header = Header(**{**fields, "shape": tuple(fields["shape"])})
        pixels, labels = batch.column("pixels"), batch.column("label").to_numpy(zero_copy_only=True)
        rows = np.frombuffer(pixels.buffers()[1], np.uint8).reshape(header.shape)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:80]
        raise StoreDefectError(f"is truncated or not an image store ({reason})") from None
    if header.format != FORMAT or len(labels) != len(rows):
        raise StoreDefectError(f"has format {header.format} and {len(labels)} labels of {len(rows)} images")
    return Content(header, rows, labels)
