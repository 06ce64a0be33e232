"""Image sets that are decoded once, into a file that all processes of a node map into memory and share."""

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from colotride.data.base import CACHE_FOLDER, ImageSet
from colotride.data.cache_file import CHUNK, CacheDefectError, CacheFile, CacheWriter, Header, checksum_of
from colotride.data.files import RULE, FileImages, decode
from colotride.data.progress import notify, progress
from colotride.errors import DataError


class CachedImages:
    """Decoded images in a mapped file. Pickling one passes the path, and the other process maps the file itself."""

    def __init__(self, path: Path, class_names: Mapping[int, str] | None = None) -> None:
        self.path = path
        self.class_names: Mapping[int, str] = class_names or {}
        self._content = CacheFile(path)
        self.name = self._content.header.images
        self.labels: Tensor = torch.from_numpy(self._content.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedImages, (self.path, self.class_names)

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """See `ImageSet.pixels`; an image is compared with its checksum the first time it is read."""
        try:
            return torch.from_numpy(self._content.take(indices.numpy()))
        except CacheDefectError as defect:
            raise DataError(
                f"{self.path} {defect}: the file was damaged after it was written; delete it, and it is made again"
            ) from None


def cached_images(images: ImageSet, root: Path) -> ImageSet:
    """The same images, read from their cache, which is made if there is none; sets in memory are returned as they are.

    A cache lies in ROOT/.colotride (for a table: beside it), below $COLOTRIDE_CACHE, or in ~/.cache/colotride when the
    root cannot be written. It is made again when it is truncated, is not a cache, or was made from image files of
    other names, sizes, dates or labels.

    Args:
        images: a side of a data set.
        root: the folder or table that it was read from.

    Raises:
        DataError: an image that cannot be decoded, a full disk, or no folder that can be written.
    """
    if not isinstance(images, FileImages) or not len(images):
        return images
    wanted = header_of(images)
    places = [folder / file_name(images.name, images.stored_size) for folder in cache_folders(root)]
    for path in places:
        if defect_of(path, wanted) is None:
            return CachedImages(path, images.class_names)
    refusals = []
    for path in places:
        with ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path))
            except OSError as error:
                refusals.append(f"{path.parent}: {error.strerror or error}")
                continue
            _make(images, wanted, path)
            return CachedImages(path, images.class_names)
    raise DataError(
        f"the image cache of {images.name} cannot be written ({'; '.join(refusals)}); "
        "name a folder for it in the environment variable COLOTRIDE_CACHE"
    )


def cache_in_memory_set(images: ImageSet, path: Path) -> None:
    """Write a set that fits into memory into a cache at `path`.

    Raises:
        OSError: the disk is full.
    """
    pixels, labels = images.pixels(torch.arange(len(images))).numpy(), images.labels.numpy()
    with CacheWriter(
        path, Header(images.name, pixels.shape[-1], "unchanged", "", pixels.shape, checksum_of(labels))
    ) as writer:
        for start in range(0, len(labels), CHUNK):
            writer.add(pixels[start : start + CHUNK], labels[start : start + CHUNK])


def header_of(files: FileImages) -> Header:
    """The description of a cache of these files."""
    size = files.stored_size
    shape = (len(files), 3, size, size)
    return Header(files.name, size, RULE, _source_digest(files), shape, checksum_of(files.labels.numpy()))


def file_name(images: str, stored_size: int) -> str:
    """A cache's file name: the set, and a digest of how it is made."""
    made = hashlib.sha256(repr((images, stored_size, RULE)).encode()).hexdigest()
    return f"{images.replace('/', '-')}-{made[:12]}.arrow"


def cache_folders(root: Path) -> list[Path]:
    """Where caches of a local data root may lie; new ones are written to the first that is writable."""
    near = root.parent / CACHE_FOLDER / root.name if root.is_file() else root / CACHE_FOLDER
    far = user_cache() / hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:12]
    return [far, near] if os.environ.get("COLOTRIDE_CACHE") else [near, far]


def user_cache() -> Path:
    """The folder of this node for what can be made or fetched again: $COLOTRIDE_CACHE, or ~/.cache/colotride."""
    chosen = os.environ.get("COLOTRIDE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "colotride"


def defect_of(path: Path, wanted: Header) -> str | None:
    """Why a file cannot be used as this cache, as the rest of a sentence; None when it can."""
    try:
        found = CacheFile(path).header
    except CacheDefectError as defect:
        return str(defect)
    if (found.images, found.stored_size, found.rule) != (wanted.images, wanted.stored_size, wanted.rule):
        return f"holds {found.images} at {found.stored_size} px ({found.rule})"
    if found != wanted:
        return "was made from other image files"
    return None


def verify_cache(path: Path) -> str | None:
    """Compare every image of a cache with its checksum: the defect, as the rest of a sentence, or None."""
    try:
        CacheFile(path).verify()
    except CacheDefectError as defect:
        return str(defect)
    return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a cache against other processes; the operating system releases the lock of a process that dies."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notify(f"waiting for another process that is making {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(files: FileImages, wanted: Header, path: Path) -> None:
    defect = defect_of(path, wanted)
    if defect is None:
        return
    replaced, part = path.exists(), path.with_suffix(".part")
    try:
        _build(files, wanted, part)
        if (damage := verify_cache(part)) is not None:
            part.unlink()
            raise DataError(f"the image cache {path} {damage} when read back; check the disk and run this again")
        os.replace(part, path)
    except OSError as error:
        raise DataError(
            f"the image cache {path} cannot be written ({error.strerror or error}); what is done is kept: make room or "
            "repair the disk and run this again, or name another folder in COLOTRIDE_CACHE"
        ) from None
    if replaced:
        notify(f"{path} {defect}; it was made again")


def _build(files: FileImages, header: Header, part: Path) -> None:
    writer = CacheWriter(part, header)
    needed, free = (len(files) - writer.done) * int(np.prod(header.shape[1:])), shutil.disk_usage(part.parent).free
    if free < needed:
        raise DataError(
            f"the image cache of {files.name} needs {needed / 1e9:.1f} GB, {part.parent} has {free / 1e9:.1f} GB; make "
            "room, use a smaller data.stored_size, or name another folder in COLOTRIDE_CACHE"
        )
    labels = files.labels.numpy()
    with writer, progress(f"decoding {files.name} once", len(files), "images", writer.done) as advance:
        for pixels in _decoded_chunks(files, writer.done):
            writer.add(pixels, labels[writer.done : writer.done + len(pixels)])
            advance(len(pixels))


def _decoded_chunks(files: FileImages, start: int) -> Iterator[NDArray[np.uint8]]:
    """The images from `start` on, in order; a chunk is decoded while its predecessor is written.

    Threads suffice, because Pillow releases the interpreter lock while it decodes and resizes; processes would import
    the user's script again and could be killed one by one.
    """
    ahead: deque[Iterator[NDArray[np.uint8]]] = deque()
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")
    try:
        for first in range(start, len(files), CHUNK):
            ahead.append(pool.map(partial(decode, size=files.stored_size), files.paths[first : first + CHUNK]))
            if len(ahead) == 2:
                yield np.stack(list(ahead.popleft()))
        for chunk in ahead:
            yield np.stack(list(chunk))
    finally:
        pool.shutdown(cancel_futures=True)


def _source_digest(files: FileImages) -> str:
    """Digest of the files' names below their common folder, sizes, dates and labels, in order."""
    whole = hashlib.sha256()
    above = len(os.path.commonpath([path.parent for path in files.paths]))
    for path, label in zip(files.paths, files.labels.tolist(), strict=True):
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"image {path} cannot be read ({error.strerror}); replace or remove it") from None
        whole.update(os.fsencode(f"{str(path)[above:]}\0{found.st_size}\0{found.st_mtime_ns}\0{label}\n"))
    return whole.hexdigest()
