"""A run's folder kept a second time where machines do not die: S3, Google Cloud Storage, a shared disk.

The second copy of a checkpoint is whole as soon as its digests are there, because they are sent last; a copy that was
cut off is never taken for a checkpoint.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from colotride.errors import CheckpointError, ConfigurationError
from colotride.training.checkpoint import CHECKPOINTS, DIGESTS, checkpoints_in


class RemoteCopy:
    """The copy of one run's folder behind a URI.

    Attributes:
        uri: of the copy.
    """

    def __init__(self, uri: str) -> None:
        """Open the place of the copy; nothing is read or written yet.

        Args:
            uri: `s3://bucket/runs/first`, `gs://bucket/...` or `file:///shared/...`; credentials as usual for each.

        Raises:
            ConfigurationError: not a URI that pyarrow knows.
        """
        self.uri = uri
        try:
            self._system, self._root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConfigurationError(
                f"storage {uri!r} cannot be opened ({_line(error)}); give s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH"
            ) from None

    def pull(self, folder: Path) -> None:
        """Fetch the copy's whole checkpoints and files where it is ahead of the folder.

        Raises:
            CheckpointError: the copy cannot be read.
        """
        try:
            there, here = self._checkpoints(), [path.name for path in checkpoints_in(folder / CHECKPOINTS)]
            if not there or (here and max(here) >= max(there)):
                return
            for entry in self._entries(self._root):
                if entry.type == fs.FileType.File:
                    self._fetch(entry.base_name, folder)
            for step in there:
                for entry in self._entries(f"{self._root}/{CHECKPOINTS}/{step}"):
                    self._fetch(f"{CHECKPOINTS}/{step}/{entry.base_name}", folder)
        except (pa.ArrowException, OSError) as error:
            raise CheckpointError(
                f"storage {self.uri} cannot be read ({_line(error)}); see that it is reachable"
            ) from None

    def push(self, folder: Path, names: Iterable[str]) -> None:
        """Send files, and the checkpoints that the copy lacks; drop those that the folder has dropped.

        Args:
            folder: the run's.
            names: of files in it; those that are missing are passed over.

        Raises:
            CheckpointError: the copy cannot be written; the folder itself is whole.
        """
        try:
            here, there = [path.name for path in checkpoints_in(folder / CHECKPOINTS)], self._checkpoints()
            for step in sorted(set(here) - set(there)):
                files = sorted((folder / CHECKPOINTS / step).iterdir(), key=lambda path: path.name == DIGESTS)
                for path in files:
                    self._send(path, f"{CHECKPOINTS}/{step}/{path.name}")
            for name in names:
                if (folder / name).is_file():
                    self._send(folder / name, name)
            for step in set(there) - set(here):
                self._system.delete_dir(f"{self._root}/{CHECKPOINTS}/{step}")
        except (pa.ArrowException, OSError) as error:
            raise CheckpointError(
                f"storage {self.uri} cannot be written ({_line(error)}); the run in {folder} is whole: mend it and resume"
            ) from None

    def _checkpoints(self) -> list[str]:
        entries = self._entries(f"{self._root}/{CHECKPOINTS}")
        return [
            entry.base_name
            for entry in entries
            if self._system.get_file_info(f"{entry.path}/{DIGESTS}").type == fs.FileType.File
        ]

    def _entries(self, path: str) -> list[fs.FileInfo]:
        found: list[fs.FileInfo] = self._system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return found

    def _fetch(self, name: str, folder: Path) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".partial-{target.name}")
        fs.copy_files(f"{self._root}/{name}", str(partial), source_filesystem=self._system)
        os.replace(partial, target)

    def _send(self, source: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        self._system.create_dir(target.rpartition("/")[0], recursive=True)
        fs.copy_files(str(source), target, destination_filesystem=self._system)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
