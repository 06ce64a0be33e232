"""One owner per directory or file: two processes that write into the same run would mix their numbers."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colotride.disk import one_line
from colotride.errors import StorageError

LOCK = ".lock"
"""File within an owned directory; it names the owner's process."""


@contextmanager
def owned(place: Path, what: str, *, lock: Path | None = None, seconds: float = 0.0) -> Iterator[None]:
    """Own a directory during the block; it is made where it is missing.

    The operating system ends the ownership with the process, however that ends: a lock never outlives its owner, and a
    file that one left behind is taken over.

    Args:
        place: to own.
        what: what it holds, for the message: "run", "search".
        lock: file that names the owner; None for one within the directory. It lies beside a file that is owned.
        seconds: how long to wait for another owner.

    Raises:
        StorageError: another process owns it, or it cannot be written.
    """
    path = lock or place / LOCK
    missing = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
    with one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(path, f"{what} {place}", seconds)
    try:
        yield
    finally:
        # Removed while it is still held: whoever opened it meanwhile finds that it is gone, and makes a new one.
        path.unlink(missing_ok=True)
        os.close(handle)
        # Nothing stays of what was refused before its first file.
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()


def _locked(path: Path, what: str, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 100, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise StorageError(
                f"{what} is in use by another process ({owner}); wait until it ends, or stop it"
            ) from None
        try:
            if _same(handle, path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
                return handle
        except OSError:
            path.unlink(missing_ok=True)
            os.close(handle)
            raise
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
