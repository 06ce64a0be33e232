"""Public image sets, from their authors' servers to the layouts that `colotride.data` reads."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from colotride.data.archives import ARCHIVES, DownloadableName, Holding
from colotride.data.transfer import fetch
from colotride.data.unpacking import unpack
from colotride.errors import DataError
from colotride.registry import DATASETS

OnProgress = Callable[[str, int, int | None], None]
"""Told what is being done, how many bytes of it are done, and of how many where that is known."""


def download(
    name: DownloadableName, root: Path, on_progress: OnProgress, *, mirror: str | None = None, keep: bool = False
) -> bool:
    """Fetch, check and unpack a data set below `root`; one that is there is left alone.

    Archives that lie in `root` are used, interrupted ones are continued. The set gets its place by a rename after it
    was read once, so that it is there whole or not at all.

    Args:
        name: of the data set.
        root: the folder that holds the data sets; it is made.
        on_progress: called while files grow and are unpacked.
        mirror: an address that has all archives under their names, instead of the authors'.
        keep: leave the archives in `root`.

    Returns:
        Whether anything was done.

    Raises:
        DataError: the folder holds something else, an archive cannot be had or trusted, or the disk is full.
    """
    holding = ARCHIVES[name]
    place = root / holding.folder
    try:
        if place.is_dir() and any(place.iterdir()):
            reason = _defect(name, root)
            if reason is None:
                return False
            raise DataError(f"{place.absolute()} is there, but not all of {name} ({reason}); move it away first")
        root.mkdir(parents=True, exist_ok=True)
        for archive in holding.archives:
            url = f"{mirror.rstrip('/')}/{archive.name}" if mirror else archive.url
            fetch(
                url,
                root / archive.name,
                md5=archive.md5,
                size=archive.size,
                on_bytes=partial(on_progress, f"fetching {archive.name}"),
            )
        _unpack_all(name, holding, root, on_progress)
        if not keep:
            for archive in holding.archives:
                (root / archive.name).unlink()
    except OSError as error:
        raise DataError(
            f"{name} cannot be written to {root.absolute()} ({error}); see to that folder, or choose --data-root"
        ) from None
    return True


def _unpack_all(name: DownloadableName, holding: Holding, root: Path, on_progress: OnProgress) -> None:
    """Unpack into a folder beside the place, read the set there once, then rename it."""
    stage = root / f".{name}.unpacking"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        for archive in holding.archives:
            unpack(root / archive.name, stage / archive.into, partial(on_progress, f"unpacking {archive.name}"))
        reason = _defect(name, stage)
        if reason is not None:
            raise DataError(f"the archives in {root.absolute()} do not hold all of {name} ({reason}); delete them")
        place = root / holding.folder
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / holding.folder, place)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _defect(name: DownloadableName, root: Path) -> str | None:
    """What `colotride.data` has to say against the set below `root`; None when both sides can be read."""
    source = DATASETS[name].read(root, 1)
    try:
        source.train()
        source.test()
    except DataError as error:
        return str(error)
    return None
