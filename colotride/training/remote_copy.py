"""A second copy of a run's directory on storage that outlives the machine: S3, Google Cloud Storage, a shared disk.

The second copy of a checkpoint is complete as soon as its digests are there, because they are sent last; a copy that
was cut off is never taken for a checkpoint.
"""

from collections.abc import Iterable
from pathlib import Path

from colotride.errors import CheckpointError, ConfigurationError
from colotride.remote import REMOTE_ERRORS, RemoteDirectory, reason_of
from colotride.training.checkpoint import CHECKPOINTS, DIGESTS, checkpoints_in


class RemoteCopy:
    """The copy of one run's directory behind a URI.

    Attributes:
        uri: of the copy.
    """

    def __init__(self, uri: str) -> None:
        """Open the location of the copy; nothing is read or written yet.

        Args:
            uri: `s3://bucket/runs/first`, `gs://bucket/...` or `file:///shared/...`; credentials as usual for each.

        Raises:
            ConfigurationError: not a URI that pyarrow knows.
        """
        self.uri = uri
        try:
            self._remote = RemoteDirectory(uri)
        except REMOTE_ERRORS as error:
            raise ConfigurationError(
                f"storage {uri!r} cannot be opened ({reason_of(error)}); give s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH"
            ) from None

    def pull(self, folder: Path) -> None:
        """Fetch the copy's complete checkpoints and files where it is ahead of the directory.

        Raises:
            CheckpointError: the copy cannot be read.
        """
        try:
            there, here = self._checkpoints(), [path.name for path in checkpoints_in(folder / CHECKPOINTS)]
            if not there or (here and max(here) >= max(there)):
                return
            for name in self._remote.names():
                self._remote.download(name, folder / name)
            for step in there:
                for name in self._remote.names(f"{CHECKPOINTS}/{step}"):
                    self._remote.download(f"{CHECKPOINTS}/{step}/{name}", folder / CHECKPOINTS / step / name)
        except REMOTE_ERRORS as error:
            raise CheckpointError(
                f"storage {self.uri} cannot be read ({reason_of(error)}); check that it can be reached"
            ) from None

    def push(self, folder: Path, names: Iterable[str]) -> None:
        """Send files, and the checkpoints that the copy lacks; drop those that the directory has dropped.

        Args:
            folder: the run's directory.
            names: of files in it; those that are missing are skipped.

        Raises:
            CheckpointError: the copy cannot be written; the directory itself is complete.
        """
        try:
            here, there = [path.name for path in checkpoints_in(folder / CHECKPOINTS)], self._checkpoints()
            for step in sorted(set(here) - set(there)):
                for path in sorted((folder / CHECKPOINTS / step).iterdir(), key=lambda path: path.name == DIGESTS):
                    self._remote.upload(path, f"{CHECKPOINTS}/{step}/{path.name}")
            for name in names:
                if (folder / name).is_file():
                    self._remote.upload(folder / name, name)
            for step in set(there) - set(here):
                self._remote.delete_directory(f"{CHECKPOINTS}/{step}")
        except REMOTE_ERRORS as error:
            raise CheckpointError(
                f"storage {self.uri} cannot be written ({reason_of(error)}); the run in {folder} is whole: repair the storage and resume"
            ) from None

    def _checkpoints(self) -> list[str]:
        steps = self._remote.names(CHECKPOINTS, directories=True)
        return [step for step in steps if self._remote.size(f"{CHECKPOINTS}/{step}/{DIGESTS}") is not None]
