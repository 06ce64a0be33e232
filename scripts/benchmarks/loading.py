"""Batches from an image store against decoding JPEG, and what its readers cost in memory."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from colotride.data.base import ImageSet
from colotride.data.cache import CachedImages, cached_images
from colotride.data.files import FileImages
from scripts.benchmarks import mapped_reader
from scripts.benchmarks.timing import side_by_side


@dataclass(frozen=True)
class ReadersRow:
    """Processes that have each read all of one store, together."""

    workers: int
    store_mib: float
    """Physical memory that the mapped store takes in all of them together: pages that are shared count once."""
    whole_mib: float
    """Physical memory of the processes with everything in them, Python and torch too."""


@dataclass(frozen=True)
class Loading:
    """What a store saves."""

    images: int
    image_size: tuple[int, int]
    """Width and height of the JPEG files."""
    stored_size: int
    file_mib: float
    """Size of the store."""
    build_seconds: float
    """Making the store, decoding included."""
    decoding: float
    """Images per second when files are decoded for every batch."""
    reading: float
    """Images per second from the store."""
    readers: tuple[ReadersRow, ...]

    @property
    def ratio(self) -> float:
        """How many times faster the store is."""
        return self.reading / self.decoding


def measure_loading(
    folder: Path,
    images: int,
    *,
    image_size: tuple[int, int] = (500, 375),
    stored_size: int = 256,
    batch: int = 112,
    rounds: int = 2,
    workers: Sequence[int] = (1, 2, 4),
    on_run: Callable[[str], None] = lambda name: None,
) -> Loading:
    """One epoch in random order from files and from the store, alternately; then the store in several processes.

    All files have been read before and lie in the system's memory, so that decoding is measured and not the disk.

    Args:
        folder: where generated files are kept for the next time, unlike the store; it is made.
        images: how many.
        image_size: width and height of the files in pixels.
        stored_size: side of the stored images in pixels.
        batch: images per batch.
        rounds: measured epochs of each, the fastest of which counts.
        workers: numbers of processes that read the store side by side.
        on_run: called with what is being measured.

    Raises:
        DataError: the store cannot be written.
    """
    on_run("photographs")
    files = FileImages("photographs/train", make_photographs(folder, images, image_size), [0] * images, stored_size)
    on_run("building the store")
    with TemporaryDirectory(dir=folder) as place:
        start = time.perf_counter()
        store = cached_images(files, Path(place))
        build_seconds = time.perf_counter() - start
        assert isinstance(store, CachedImages)
        path = store.path
        speeds = _speeds({"decoding": files, "reading": store}, batch, rounds, on_run)
        # A mapping in this process too would count for a part of the readers' pages.
        del store
        rows = []
        for count in workers:
            on_run(f"{count} processes")
            rows.append(measure_readers(path, count, batch))
        file_mib = path.stat().st_size / 2**20
    return Loading(images, image_size, stored_size, file_mib, build_seconds, **speeds, readers=tuple(rows))


def _speeds(
    sources: Mapping[str, ImageSet], batch: int, rounds: int, on_run: Callable[[str], None]
) -> dict[str, float]:
    """Images per second of an epoch in random order from each source."""
    count = len(next(iter(sources.values())))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).split(batch)

    def epoch(source: ImageSet) -> None:
        for indices in order:
            source.pixels(indices)

    works = {name: partial(epoch, source) for name, source in sources.items()}
    measured = side_by_side(works, rounds, torch.device("cpu"), on_run, warm=False)
    return {name: count / one.best for name, one in measured.items()}


def measure_readers(store: Path, workers: int, batch: int) -> ReadersRow:
    """The memory of processes that have each read all of a store, while all of them hold it.

    Args:
        store: the file.
        workers: how many processes.
        batch: images that each reads at a time.
    """
    with ExitStack() as stack:
        readers = []
        for _ in range(workers):
            arguments = [sys.executable, "-P", "-m", mapped_reader.__name__, str(store), str(batch)]
            known = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            reader = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=known)
            # Ends the input, which the process waits for, and takes its exit.
            stack.callback(reader.communicate)
            readers.append(reader)
        for reader in readers:
            if reader.stdout is None or reader.stdout.readline() != "read\n":
                raise RuntimeError(f"the process that reads {store} ended early with {reader.wait()}")
        whole = sum(_proportional(reader.pid, None) for reader in readers)
        shared = sum(_proportional(reader.pid, store) for reader in readers)
    return ReadersRow(workers, shared / 1024, whole / 1024)


def make_photographs(folder: Path, images: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files of smooth colours with grain, about 60 kB at 500 x 375 pixels, as photographs have; their paths."""
    place = folder / "photographs"
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = [place / f"{size[0]}x{size[1]}-{index:06d}.jpg" for index in range(images)]
    for path in paths:
        colours = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        grain = random.integers(-8, 9, (size[1], size[0], 1))
        if not path.is_file():
            smooth = np.asarray(colours.resize(size, Image.Resampling.BICUBIC), np.int64)
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def _proportional(process: int, file: Path | None) -> int:
    """KiB of a process's memory (PSS: a page of n processes counts 1/n for each): of one mapped file, or of all."""
    if file is None:
        return _pss(Path(f"/proc/{process}/smaps_rollup").read_text().splitlines())
    found, inside = [], False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        # A mapping's first line begins with its addresses, the others with a name and a colon.
        if not line.split(maxsplit=1)[0].endswith(":"):
            inside = line.endswith(str(file.absolute()))
        elif inside:
            found.append(line)
    return _pss(found)


def _pss(lines: Sequence[str]) -> int:
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
