"""The file of an image cache: an Arrow IPC stream of decoded images, each with its class and its checksum.

The stream is written chunk by chunk in the order of the images, so that what an interrupted build has written can be
read, checked and continued.
"""

import json
import os
import zlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FORMAT = 2
CHUNK = 256
"""Images that are decoded and written together: a record batch of the stream."""

KEY = b"colotride"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

Chunk = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint32]]
"""Pixels [images, channels, height, width], classes and checksums of one record batch."""


class CacheDefectError(Exception):
    """Why a file cannot be used as the cache that is asked for: the rest of a sentence that begins with its path."""


@dataclass(frozen=True)
class Header:
    """Description of a cache, kept in the metadata of its schema."""

    images: str
    """Name of the set and its side ("cub/train")."""
    stored_size: int
    """Side in pixels."""
    rule: str
    """How files became pixels."""
    source: str
    """Digest of the image files and their labels."""
    shape: tuple[int, int, int, int]
    """Images, channels, height, width."""
    labels: int
    """CRC-32 of the classes of all images."""
    format: int = FORMAT


class CacheFile:
    """An open cache. Its arrays are views of the mapped file, so that processes share one copy in memory.

    Attributes:
        header: what the cache says about itself.
        labels: class of every image, [images].
    """

    def __init__(self, path: Path) -> None:
        """Map a cache into memory and check its structure; its pixels are checked when they are first used.

        Raises:
            CacheDefectError: no such file, truncated, or not a cache of this format.
        """
        self.path = path
        if not path.is_file():
            raise CacheDefectError("is not there")
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_stream(source)
                self.header = _header_of(reader.schema)
                self._chunks = [_arrays(batch, self.header) for batch in reader]
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:80]
            raise CacheDefectError(f"is truncated or not an image cache ({reason})") from None
        found = sum(len(labels) for _, labels, _ in self._chunks)
        if found != self.header.shape[0]:
            raise CacheDefectError(f"is truncated: it has {found} of {self.header.shape[0]} images")
        self.labels = np.concatenate([labels for _, labels, _ in self._chunks])
        if checksum_of(self.labels) != self.header.labels:
            raise CacheDefectError("has another checksum of its classes")

    @cached_property
    def _verified(self) -> NDArray[np.bool_]:
        return np.zeros(self.header.shape[0], bool)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the images at these indices; each is compared with its checksum the first time it is read.

        Raises:
            CacheDefectError: an image that is not what was written.
        """
        pixels = np.empty((len(indices), *self.header.shape[1:]), np.uint8)
        for row, index in enumerate(indices.tolist()):
            images, _, checksums = self._chunks[index // CHUNK]
            pixels[row] = images[index % CHUNK]
            if not self._verified[index]:
                # The copy is checked: it lies in the processor's cache, and it is what the caller gets.
                if zlib.crc32(pixels[row]) != checksums[index % CHUNK]:
                    raise CacheDefectError(f"has another checksum at image {index}")
                self._verified[index] = True
        return pixels

    def verify(self) -> None:
        """Compare every image with its checksum.

        Raises:
            CacheDefectError: an image that is not what was written.
        """
        for number, (images, _, checksums) in enumerate(self._chunks):
            wrong = np.flatnonzero(checksums_of(images) != checksums)
            if len(wrong):
                raise CacheDefectError(f"has another checksum at image {number * CHUNK + int(wrong[0])}")


class CacheWriter:
    """Writes a cache, continuing what an interrupted call has left in the file when it is part of this very cache.

    Attributes:
        done: number of images that are in the file.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._header = path, header
        sizes = header.shape[1] * header.shape[2] * header.shape[3]
        fields = [("pixels", pa.binary(sizes)), ("label", pa.int64()), ("checksum", pa.uint32())]
        self._schema = pa.schema(fields, metadata={KEY: json.dumps(asdict(header)).encode()})
        self.done, self._end = _whole_part(path, header)

    def __enter__(self) -> "CacheWriter":
        self._file: BinaryIO = self._path.open("r+b" if self.done else "wb")
        self._file.truncate(self._end)
        self._file.seek(self._end)
        if not self.done:
            self._write(self._schema.serialize())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write(END_OF_STREAM)
        self._file.close()

    def add(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Append a chunk; it is on the disk when this returns.

        Raises:
            OSError: the disk is full.
        """
        pixels = np.ascontiguousarray(pixels)
        packed = pa.Array.from_buffers(self._schema.field("pixels").type, len(pixels), [None, pa.py_buffer(pixels)])
        columns = [packed, pa.array(labels), pa.array(checksums_of(pixels))]
        self._write(pa.record_batch(columns, schema=self._schema).serialize())
        self.done += len(pixels)

    def _write(self, content: pa.Buffer | bytes) -> None:
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())


def checksum_of(labels: NDArray[np.int64]) -> int:
    """CRC-32 of the classes of a set."""
    return zlib.crc32(labels.tobytes())


def checksums_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """CRC-32 of each image."""
    return np.array([zlib.crc32(image) for image in pixels], np.uint32)


def _whole_part(path: Path, header: Header) -> tuple[int, int]:
    """How many images of an interrupted build are intact, and where in the file they end; (0, 0) for anything else."""
    done = end = 0
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_stream(source)
            if _header_of(reader.schema) != header:
                return 0, 0
            while done < header.shape[0]:
                images, _, checksums = _arrays(reader.read_next_batch(), header)
                if not np.array_equal(checksums_of(images), checksums):
                    break
                done, end = done + len(images), source.tell()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, IndexError, StopIteration):
        # Nothing was begun, or the file ends here; what was read so far is intact.
        pass
    return done, end


def _header_of(schema: pa.Schema) -> Header:
    fields = json.loads((schema.metadata or {})[KEY])
    if fields["format"] != FORMAT:
        raise ValueError(f"format {fields['format']}, expected {FORMAT}")
    return Header(**{**fields, "shape": tuple(fields["shape"])})


def _arrays(batch: pa.RecordBatch, header: Header) -> Chunk:
    batch.validate()
    pixels, labels, checksums = (batch.column(name) for name in ("pixels", "label", "checksum"))
    images = np.frombuffer(pixels.buffers()[1], np.uint8).reshape(len(pixels), *header.shape[1:])
    return images, labels.to_numpy(zero_copy_only=True), checksums.to_numpy(zero_copy_only=True)
