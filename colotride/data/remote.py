"""Decoded data sets on S3, on GCS or on a shared disk: pushed once, fetched once per node."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from colotride.data.base import CACHE_FOLDER, ImageSet, Source
from colotride.data.cache import CachedImages, cache_in_memory_set, locked, user_cache
from colotride.data.cache_file import CacheDefectError, CacheFile
from colotride.data.progress import progress
from colotride.errors import DataError
from colotride.remote import BLOCK, REMOTE_ERRORS, RemoteDirectory, blocks_of, reason_of

UNIT = f"blocks of {BLOCK >> 20} MiB"


@dataclass(frozen=True)
class PushedSide:
    """One side of a data set at an address."""

    file: str
    size: int
    """Bytes."""
    checksum: str
    """SHA-256 of the file."""
    class_names: dict[str, str] = field(default_factory=dict)
    """Names of the classes by label, where the data set has them."""


def push(name: str, stored_size: int, sides: Mapping[str, ImageSet], zero_shot: bool, address: str) -> None:
    """Copy the decoded sides of a data set to an address, which then serves as `data.root`.

    Args:
        name: of the data set.
        stored_size: side in pixels.
        sides: "test" and, if there is one, "train".
        zero_shot: whether the test classes differ from the training classes.
        address: s3://..., gs://... or file://..., as `pyarrow.fs.FileSystem.from_uri` understands it.

    Raises:
        DataError: the address cannot be written.
    """
    with _reached(address, "written") as directory:
        listing = {side: asdict(_push_side(images, directory)) for side, images in sides.items()}
        content = json.dumps({"zero_shot": zero_shot, "sides": listing}, indent=2).encode()
        directory.write(_listing(name, stored_size), content)


def remote_source(name: str, stored_size: int, address: str) -> Source:
    """A data set that was pushed to an address; each side is fetched when it is read, once per node.

    Raises:
        DataError: nothing was pushed there, or the address cannot be reached; when a side is read: it is not there,
            or it arrives damaged.
    """
    remedy = f"copy it there with colotride download {name} --stored-size {stored_size} --push {address}"
    with _reached(address, "read", remedy) as directory:
        content = directory.read(_listing(name, stored_size))
    try:
        listing = json.loads(content)
        sides = {side: PushedSide(**fields) for side, fields in listing["sides"].items()}
        zero_shot = bool(listing["zero_shot"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the listing of {name} at {address} cannot be understood ({error}); {remedy}") from None
    read = partial(_fetched, name, sides, address)
    return Source(train=partial(read, "train"), test=partial(read, "test"), zero_shot=zero_shot)


def _push_side(images: ImageSet, directory: RemoteDirectory) -> PushedSide:
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(images, CachedImages):
            path = images.path
        else:
            path = Path(folder) / "images.arrow"
            cache_in_memory_set(images, path)
        checksum, size = _digest_of(path), path.stat().st_size
        file = f"{images.name.replace('/', '-')}-{checksum[:16]}.arrow"
        if directory.size(file) != size:
            with progress(f"pushing {images.name}", blocks_of(size), UNIT) as advance:
                directory.upload(path, file, advance)
    names = getattr(images, "class_names", None) or {}
    return PushedSide(file, size, checksum, {str(label): name for label, name in names.items()})


def _fetched(name: str, sides: Mapping[str, PushedSide], address: str, side: str) -> ImageSet:
    if side not in sides:
        raise DataError(f"{name} at {address} has no {side} side; push it from where its images are")
    pushed = sides[side]
    # The name holds the checksum, and a file gets it only after it was checked.
    path = user_cache() / "fetched" / Path(pushed.file).name
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
    return CachedImages(path, {int(label): name for label, name in pushed.class_names.items()})


def _is_there(path: Path, pushed: PushedSide) -> bool:
    try:
        CacheFile(path)
    except CacheDefectError:
        return False
    return path.stat().st_size == pushed.size


def _fetch(address: str, pushed: PushedSide, path: Path) -> None:
    arrived = path.with_suffix(".new")
    try:
        with (
            _reached(address, "read") as directory,
            progress(f"fetching {pushed.file}", blocks_of(pushed.size), UNIT) as advance,
        ):
            directory.download(pushed.file, arrived, advance)
        found = _digest_of(arrived)
        if found != pushed.checksum:
            raise DataError(
                f"{pushed.file} from {address} has the checksum {found[:12]}, expected {pushed.checksum[:12]}; delete "
                "it there and push it again"
            )
        arrived.replace(path)
    finally:
        arrived.unlink(missing_ok=True)


@contextmanager
def _reached(
    address: str, action: str, remedy: str = "check the address and your rights to it"
) -> Iterator[RemoteDirectory]:
    """The directory of decoded sets at an address; its errors become one line."""
    try:
        scheme, query, rest = address.partition("?")
        yield RemoteDirectory(f"{scheme.rstrip('/')}/{CACHE_FOLDER}{query}{rest}")
    except REMOTE_ERRORS as error:
        raise DataError(f"{address} cannot be {action} ({reason_of(error)}); {remedy}") from None


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing(name: str, stored_size: int) -> str:
    return f"{name}-{stored_size}px.json"
