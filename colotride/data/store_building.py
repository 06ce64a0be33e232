"""Making an image store: in parallel, once among all processes that ask, and going on where it was interrupted."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from colotride.data.files import FileImages
from colotride.data.store_file import CHUNK, Content, Header, StoreDefectError, checksum_of, read_store, write_store
from colotride.data.store_worker import Job, Worker, fill
from colotride.data.telling import progress, say
from colotride.errors import DataError
from colotride.io import write_atomically


def build_store(files: FileImages, header: Header, path: Path) -> None:
    """Decode all images of a set into a store, which gets its place by a rename once it was read back and verified.

    Finished chunks are kept beside it until then; a later call takes them over when neither the recipe nor the image
    files have changed.

    Args:
        files: what to decode.
        header: of the store that is wanted, without its checksum.
        path: where it goes; its folder exists.

    Raises:
        DataError: an image that cannot be decoded, a disk that is full, or a decoding process that was killed.
    """
    part, journal = path.with_suffix(".part"), Journal(path.with_suffix(".journal"))
    try:
        _begin(files, header, part, journal)
        _fill_all(files, part, journal)
        rows = np.memmap(part, np.uint8, "r", shape=header.shape)
        digests = [journal.finished[chunk] for chunk in range(len(journal.finished))]
        labels = files.labels.numpy()
        put_store(path, replace(header, checksum=checksum_of(labels, digests)), rows, labels)
        part.unlink()
        journal.path.unlink()
    except OSError as error:
        raise DataError(
            f"the image store {path} cannot be written ({error.strerror or error}); what is done is kept: see to the "
            "disk and run this again, or name another folder in COLOTRIDE_CACHE"
        ) from None
    except StoreDefectError as defect:
        journal.begin("")
        raise DataError(f"the image store {path} {defect} when read back; check the disk and run this again") from None


def put_store(path: Path, header: Header, rows: np.ndarray, labels: np.ndarray) -> Content:
    """Write a store under a temporary name, read it back, verify it, and give it its name.

    Raises:
        StoreDefectError: what is on the disk is not what was written.
        OSError: the disk is full.
    """
    # One name, not one per process: the lock lets one write at a time, and what a killed one left is overwritten.
    temporary = path.with_suffix(".new")
    try:
        write_store(temporary, header, rows, labels)
        read_store(temporary).verify()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return read_store(path)


class Journal:
    """Which chunks of which store are done, one line each."""

    def __init__(self, path: Path) -> None:
        self.path, self.identity = path, ""
        self.finished: dict[int, str] = {}
        """Digests of the finished chunks."""
        try:
            identity, *lines, _ = path.read_text().split("\n")
            self.finished = dict(json.loads(line) for line in lines)
            self.identity = identity
        except (FileNotFoundError, ValueError, TypeError):
            # Nothing was begun, or something else lies there: all chunks are to be done.
            self.finished = {}

    def begin(self, identity: str) -> None:
        """Forget everything; what follows belongs to this store."""
        self.identity, self.finished = identity, {}
        self._save()

    def add(self, chunk: int, digest: str) -> None:
        """Note that a chunk is on the disk."""
        self.finished[chunk] = digest
        self._save()

    def _save(self) -> None:
        lines = [self.identity, *map(json.dumps, self.finished.items())]
        write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())


def _begin(files: FileImages, header: Header, part: Path, journal: Journal) -> None:
    """Go on with what an interrupted build has left, if it is of this very store; or else start anew."""
    identity, size = json.dumps(asdict(header)), int(np.prod(header.shape))
    if journal.identity == identity and part.is_file() and part.stat().st_size == size:
        return
    part.unlink(missing_ok=True)
    free = shutil.disk_usage(part.parent).free
    if free < 2 * size:
        raise DataError(
            f"the image store of {files.name} needs {2 * size / 1e9:.1f} GB while it is made, {part.parent} has "
            f"{free / 1e9:.1f} GB; make room, use a smaller data.stored_size, or name another folder in COLOTRIDE_CACHE"
        )
    with part.open("xb") as file:
        file.truncate(size)
    journal.begin(identity)


def _fill_all(files: FileImages, part: Path, journal: Journal) -> None:
    todo = [chunk for chunk in range(-(-len(files) // CHUNK)) if chunk not in journal.finished]

    def job(chunk: int) -> Job:
        paths = [str(path) for path in files.paths[chunk * CHUNK : (chunk + 1) * CHUNK]]
        return Job(str(part), chunk * CHUNK * 3 * files.stored_size**2, paths, files.stored_size, files.name)

    def count_of(chunk: int) -> int:
        return min(CHUNK, len(files) - chunk * CHUNK)

    if len(todo) <= 1:
        for chunk in todo:
            journal.add(chunk, fill(job(chunk)))
        return
    with ExitStack() as stack:
        done_before = len(files) - sum(map(count_of, todo))
        advance = stack.enter_context(progress(f"decoding {files.name} once", len(files), "images", done_before))
        workers: SimpleQueue[Worker] = SimpleQueue()
        count = min(len(os.sched_getaffinity(0)), len(todo))
        for _ in range(count):
            workers.put(stack.enter_context(Worker()))

        def work(chunk: int) -> str:
            worker = workers.get()
            try:
                return worker(job(chunk))
            finally:
                workers.put(worker)

        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        chunks = {pool.submit(work, chunk): chunk for chunk in todo}
        for done in as_completed(chunks):
            journal.add(chunks[done], done.result())
            advance(count_of(chunks[done]))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes of this machine away from a store; the lock goes with the process that holds it."""
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that makes {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
