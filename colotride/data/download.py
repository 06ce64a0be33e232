"""Public image sets, from their authors' servers to the layouts that `colotride.data` reads."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from colotride.data.archives import ARCHIVES, DatasetArchives, DownloadableName
from colotride.data.transfer import fetch
from colotride.data.unpacking import unpack
from colotride.errors import DataError, StorageError
from colotride.locking import owned
from colotride.registry import DATASETS

OnProgress = Callable[[str, int, int | None], None]
"""Called with the current step, the bytes done, and the total where it is known."""


def download(
    name: DownloadableName, root: Path, on_progress: OnProgress, *, mirror: str | None = None, keep: bool = False
) -> bool:
    """Fetch, check and unpack a data set below `root`; one that is there is left alone.

    Archives that lie in `root` are used, interrupted ones are continued. The set is moved into place after it has been
    read once, so that it is there as a whole or not at all.

    Args:
        name: of the data set.
        root: the folder that holds the data sets; it is made.
        on_progress: called while files grow and are unpacked.
        mirror: an address that serves all archives under their names, used instead of the authors' servers.
        keep: leave the archives in `root`.

    Returns:
        Whether anything was done.

    Raises:
        DataError: the folder holds something else, an archive cannot be fetched or is unsafe, or the disk is full.
        StorageError: another process downloads the set to this folder.
    """
    target = root / ARCHIVES[name].folder
    try:
        if target.is_dir() and any(target.iterdir()):
            reason = _defect(name, root)
            if reason is None:
                return False
            raise DataError(f"{target.absolute()} is there, but not all of {name} ({reason}); move it away first")
        root.mkdir(parents=True, exist_ok=True)
        # Two processes would unpack into the same folder.
        with owned(root, f"the download of {name} to", lock=root / f".{name}.lock"):
            _fetch_and_unpack(name, root, on_progress, mirror, keep)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(
            f"{name} cannot be written to {root.absolute()} ({error}); see to that folder, or choose --data-root"
        ) from None
    return True


def _fetch_and_unpack(
    name: DownloadableName, root: Path, on_progress: OnProgress, mirror: str | None, keep: bool
) -> None:
    archives_of_set = ARCHIVES[name]
    for archive in archives_of_set.archives:
        url = f"{mirror.rstrip('/')}/{archive.name}" if mirror else archive.url
        fetch(
            url,
            root / archive.name,
            md5=archive.md5,
            size=archive.size,
            on_bytes=partial(on_progress, f"fetching {archive.name}"),
        )
    _unpack_all(name, archives_of_set, root, on_progress)
    if not keep:
        for archive in archives_of_set.archives:
            (root / archive.name).unlink()


def _unpack_all(name: DownloadableName, archives_of_set: DatasetArchives, root: Path, on_progress: OnProgress) -> None:
    """Unpack into a folder beside the target, read the set there once, then rename it."""
    stage = root / f".{name}.unpacking"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        for archive in archives_of_set.archives:
            unpack(root / archive.name, stage / archive.into, partial(on_progress, f"unpacking {archive.name}"))
        reason = _defect(name, stage)
        if reason is not None:
            raise DataError(f"the archives in {root.absolute()} do not hold all of {name} ({reason}); delete them")
        target = root / archives_of_set.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / archives_of_set.folder, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _defect(name: DownloadableName, root: Path) -> str | None:
    """Why the data set below `root` cannot be read; None when both sides can."""
    source = DATASETS[name].read(root, 1)
    try:
        source.train()
        source.test()
    except DataError as error:
        return str(error)
    return None
