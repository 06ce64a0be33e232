"""What a disk does to a program, in one line: full, read-only, a file where a folder should be, too small a quota."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colotride.errors import StorageError

ROOM = "free some space, then give the same command again"
RIGHTS = "make it writable, or choose another place"
KIND = "move away what is there, or choose another place"

REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), then give the same command again",
    errno.EROFS: RIGHTS,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.ENOTDIR: KIND,
    errno.EISDIR: KIND,
    errno.EEXIST: KIND,
    errno.ENOTEMPTY: KIND,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove the circle of links",
    errno.ENOENT: "check the path",
    errno.EIO: "check the disk, then give the same command again",
    errno.ESTALE: "mount the network disk anew, then give the same command again",
    errno.ETXTBSY: KIND,
    errno.EMFILE: "raise the limit on open files (ulimit -n), then give the same command again",
    errno.ENFILE: "close other programs, then give the same command again",
}
"""What helps against each failure that is the disk's or its owner's, and no defect of the program."""


def storage_error(error: OSError, path: Path | None = None) -> StorageError | None:
    """The error as one line with its remedy; None where it is none of the disk's.

    Args:
        error: what the operating system raised.
        path: of the file, where the error may not name it, or names a temporary one.
    """
    if isinstance(error, StorageError):
        return error
    if error.errno not in REMEDIES:
        return None
    name = path or error.filename
    where = "a file" if name is None else os.fsdecode(name) if isinstance(name, bytes) else str(name)
    if path is not None and error.errno in (errno.ENOTDIR, errno.EEXIST):
        where = f"{path} cannot be written: {_in_the_way(path)}"
        return StorageError(f"{where}; {REMEDIES[error.errno]}")
    return StorageError(f"{where} cannot be written or read ({os.strerror(error.errno)}); {REMEDIES[error.errno]}")


@contextmanager
def one_line(path: Path | None = None) -> Iterator[None]:
    """Turn what the disk refuses within the block into a `StorageError`.

    Args:
        path: of the file that the block writes or reads.

    Raises:
        StorageError: instead of an `OSError` of the disk; other errors stay what they are.
    """
    try:
        yield
    except OSError as error:
        found = storage_error(error, path)
        if found is None or found is error:
            raise
        raise found from None


def check_writable(folder: Path, size: int = 4096) -> None:
    """Make a folder, and write and remove a file in it, before hours of work that end there.

    Args:
        folder: to write in.
        size: bytes of the file.

    Raises:
        StorageError: it cannot be written.
    """
    with one_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with one_line(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")
        file.flush()
        os.posix_fallocate(file.fileno(), 0, size)
        os.fsync(file.fileno())


def check_file(path: Path) -> None:
    """See that a file could be written under a path.

    Raises:
        StorageError: it is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder, not a file; {KIND}")
    check_writable(path.parent)


def _in_the_way(path: Path) -> str:
    for parent in (path, *path.parents):
        if parent.exists() and not parent.is_dir():
            return f"{parent} is a file, not a folder"
    return f"there is something else where its folder {path.parent} should be"
