"""Image stores on S3, on GCS or on a shared disk: pushed once, fetched once per node."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import fs

from colotride.data.base import ImageSet
from colotride.data.source import STORES, Source
from colotride.data.store import StoredImages, cache_folder, store_in_memory
from colotride.data.store_building import locked
from colotride.data.store_file import StoreDefectError, read_store
from colotride.data.telling import progress
from colotride.errors import DataError

BLOCK = 1 << 24
"""Bytes that are copied at a time."""


@dataclass(frozen=True)
class Pushed:
    """A side of a set as it lies at an address."""

    file: str
    size: int
    """Bytes."""
    checksum: str


def push(name: str, stored_size: int, sides: Mapping[str, ImageSet], zero_shot: bool, address: str) -> None:
    """Bring the stores of a set to an address, which then serves as `data.root`; what is there already stays.

    Args:
        name: of the set.
        stored_size: side in pixels.
        sides: "test" and, if there is one, "train".
        zero_shot: whether the test classes are others than the training ones.
        address: s3://..., gs://... or file://..., as `pyarrow.fs.FileSystem.from_uri` understands it.

    Raises:
        DataError: the address cannot be written.
    """
    listing = {side: asdict(_push_side(images, address)) for side, images in sides.items()}
    content = json.dumps({"zero_shot": zero_shot, "sides": listing}, indent=2).encode()
    with (
        _reached(address, "written") as (system, folder),
        system.open_output_stream(f"{folder}/{_listing(name, stored_size)}") as file,
    ):
        file.write(content)


def remote_source(name: str, stored_size: int, address: str) -> Source:
    """A data set whose stores were pushed to an address; each side is fetched when it is read, once per node.

    Raises:
        DataError: nothing was pushed there, or the address cannot be reached; when a side is read: it is not there,
            or it arrives damaged.
    """
    remedy = f"bring it there with scripts/download.py {name} --stored-size {stored_size} --push {address}"
    with _reached(address, "read", remedy) as (system, folder):
        content = system.open_input_stream(f"{folder}/{_listing(name, stored_size)}").read()
    try:
        listing = json.loads(content)
        sides = {side: Pushed(**fields) for side, fields in listing["sides"].items()}
        zero_shot = bool(listing["zero_shot"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"what lies at {address} for {name} cannot be understood ({error}); {remedy}") from None
    read = partial(_fetched, name, sides, address)
    return Source(train=partial(read, "train"), test=partial(read, "test"), zero_shot=zero_shot)


def _push_side(images: ImageSet, address: str) -> Pushed:
    with tempfile.TemporaryDirectory() as folder:
        path = images.path if isinstance(images, StoredImages) else store_in_memory(images, Path(folder) / "it.arrow")
        checksum, size = read_store(path).header.checksum, path.stat().st_size
        file = f"{images.name.replace('/', '-')}-{checksum[:16]}.arrow"
        with _reached(address, "written") as (system, place):
            system.create_dir(place, recursive=True)
            if system.get_file_info(f"{place}/{file}").size != size:
                with path.open("rb") as source, system.open_output_stream(f"{place}/{file}") as target:
                    _copy(source, target, size, f"pushing {images.name}")
    return Pushed(file, size, checksum)


def _fetched(name: str, sides: Mapping[str, Pushed], address: str, side: str) -> ImageSet:
    if side not in sides:
        raise DataError(f"{name} at {address} has no {side} side; push it from where its images are")
    pushed = sides[side]
    path = cache_folder() / "fetched" / Path(pushed.file).name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not _is_there(path, pushed):
                _fetch(address, pushed, path)
    except OSError as error:
        raise DataError(
            f"{pushed.file} cannot be kept in {path.parent} ({error.strerror or error}); "
            "name another folder in the environment variable COLOTRIDE_CACHE"
        ) from None
    return StoredImages(path)


def _is_there(path: Path, pushed: Pushed) -> bool:
    try:
        return read_store(path).header.checksum == pushed.checksum and path.stat().st_size == pushed.size
    except StoreDefectError:
        return False


def _fetch(address: str, pushed: Pushed, path: Path) -> None:
    temporary = path.with_suffix(".new")
    try:
        with _reached(address, "read") as (system, folder):
            source = system.open_input_stream(f"{folder}/{pushed.file}")
            with source, temporary.open("wb") as target:
                _copy(source, target, pushed.size, f"fetching {pushed.file}")
                target.flush()
                os.fsync(target.fileno())
        content = read_store(temporary)
        content.verify()
        if content.header.checksum != pushed.checksum:
            raise StoreDefectError("is another one than was pushed")
        os.replace(temporary, path)
    except StoreDefectError as defect:
        raise DataError(f"{pushed.file} from {address} {defect}; delete it there and push it again") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _reached(
    address: str, done: str, remedy: str = "check the address and your rights to it"
) -> Iterator[tuple[fs.FileSystem, str]]:
    """The file system of an address, and the folder of stores in it; its errors become one line."""
    try:
        system, path = fs.FileSystem.from_uri(address)
        yield system, f"{path.rstrip('/')}/{STORES}"
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{address} cannot be {done} ({' '.join(str(error).split())}); {remedy}") from None


def _copy(source: IO[bytes] | pa.NativeFile, target: IO[bytes] | pa.NativeFile, size: int, what: str) -> None:
    with progress(what, -(-size // BLOCK), f"blocks of {BLOCK >> 20} MiB") as advance:
        while block := source.read(BLOCK):
            target.write(block)
            advance(1)


def _listing(name: str, stored_size: int) -> str:
    return f"{name}-{stored_size}px.json"
