"""Image sets that were decoded once, into a file that all processes of a node map and share."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from colotride.data.base import ImageSet
from colotride.data.decoding import RULE
from colotride.data.files import FileImages
from colotride.data.source import STORES
from colotride.data.store_building import build_store, locked, put_store
from colotride.data.store_file import Header, StoreDefectError, checksum_of, digests_of, read_store
from colotride.data.telling import say
from colotride.errors import DataError


class StoredImages:
    """Images in an Arrow file, mapped into memory: processes share its pages, and pickling it takes the path along."""

    def __init__(self, path: Path, class_names: Mapping[int, str] | None = None) -> None:
        self.path, self.class_names = path, class_names or {}
        self._content = read_store(path)
        self.name = self._content.header.images
        self.labels: Tensor = torch.from_numpy(self._content.labels.copy())

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredImages, (self.path, self.class_names)

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """See `ImageSet.pixels`; nothing is decoded."""
        return torch.from_numpy(self._content.rows.take(indices.numpy(), axis=0))


def stored(images: ImageSet, root: Path) -> ImageSet:
    """The same images, read from their store, which is made when there is none; sets in memory stay as they are.

    A store lies in ROOT/.colotride (of a table: beside it), or below $COLOTRIDE_CACHE, or else ~/.cache/colotride,
    when the root cannot be written. It is made again when it is truncated, something else, or made from image files
    of other names, sizes, dates or labels.

    Args:
        images: a side of a data set.
        root: the folder or table that it was read from.

    Raises:
        DataError: an image that cannot be decoded, a disk that is full, or no folder that can be written.
    """
    if not isinstance(images, FileImages) or not len(images):
        return images
    wanted = header_of(images)
    places = [folder / file_name(images.name, images.stored_size) for folder in store_folders(root)]
    for path in places:
        if defect_of(path, wanted) is None:
            return StoredImages(path, images.class_names)
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
            return StoredImages(path, images.class_names)
    raise DataError(
        f"the image store of {images.name} cannot be written ({'; '.join(refusals)}); "
        "name a folder for it in the environment variable COLOTRIDE_CACHE"
    )


def store_in_memory(images: ImageSet, path: Path) -> Path:
    """Put a set that fits into memory into a store at `path`, which is returned.

    Raises:
        OSError: the disk is full.
    """
    rows = images.pixels(torch.arange(len(images))).numpy()
    labels = images.labels.numpy()
    header = Header(images.name, rows.shape[-1], "as it is", "", rows.shape)
    put_store(path, replace(header, checksum=checksum_of(labels, digests_of(rows))), rows, labels)
    return path


def header_of(files: FileImages) -> Header:
    """What a store of these files says about itself, but for its checksum."""
    size = files.stored_size
    return Header(files.name, size, RULE, _source_digest(files), (len(files), 3, size, size))


def file_name(images: str, stored_size: int) -> str:
    """A store's file name: the set, and a digest of how it is made."""
    recipe = hashlib.sha256(repr((images, stored_size, RULE)).encode()).hexdigest()
    return f"{images.replace('/', '-')}-{recipe[:12]}.arrow"


def store_folders(root: Path) -> list[Path]:
    """Where stores of a local data root may lie, the place for new ones first."""
    near = root.parent / STORES / root.name if root.is_file() else root / STORES
    far = cache_folder() / hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:12]
    return [far, near] if os.environ.get("COLOTRIDE_CACHE") else [near, far]


def cache_folder() -> Path:
    """The folder of this node for what can be made or fetched again: $COLOTRIDE_CACHE, or ~/.cache/colotride."""
    chosen = os.environ.get("COLOTRIDE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "colotride"


def defect_of(path: Path, wanted: Header) -> str | None:
    """Why a file cannot serve as this store, as the end of a sentence; None when it can."""
    try:
        found = read_store(path).header
    except StoreDefectError as defect:
        return str(defect)
    if (found.images, found.stored_size, found.rule) != (wanted.images, wanted.stored_size, wanted.rule):
        return f"holds {found.images} at {found.stored_size} px ({found.rule})"
    if (found.source, found.shape) != (wanted.source, wanted.shape):
        return "was made from other image files"
    return None


def verify_store(path: Path) -> str | None:
    """Read a whole store and compare it with its checksum: what is wrong with it, or None."""
    try:
        read_store(path).verify()
    except StoreDefectError as defect:
        return str(defect)
    return None


def _make(files: FileImages, wanted: Header, path: Path) -> None:
    defect = defect_of(path, wanted)
    if defect is None:
        return
    again = path.exists()
    build_store(files, wanted, path)
    if again:
        say(f"{path} {defect}; it was made again")


def _source_digest(files: FileImages) -> str:
    """Digest of the files' names below their common folder, sizes, dates and labels, in order."""
    whole = hashlib.sha256()
    above = len(os.path.commonpath([path.parent for path in files.paths]))
    for path, label in zip(files.paths, files.labels.tolist(), strict=True):
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"image {path} cannot be read ({error.strerror}); fetch {files.name} again") from None
        whole.update(os.fsencode(f"{str(path)[above:]}\0{found.st_size}\0{found.st_mtime_ns}\0{label}\n"))
    return whole.hexdigest()
