"""Optuna's journal with a check in every line: lines that are missing, foreign or altered are found when it is opened.

Every line is Optuna's own and opens in its tools; two keys more count the lines and chain their checksums.
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from colotride.disk import one_line
from colotride.errors import SearchError

LOCK_SECONDS = 5
"""Seconds after which the lock of a killed driver is taken over."""

NUMBER, CHECK = "line", "check"
"""Keys that are added to a line: its number among the search's own ones, and the checksum up to it."""

NOTES = (2, 3, 9)
"""Operations that other tools may add, such as notes in optuna-dashboard: attributes of the study, and system
attributes of a trial."""

REMEDY = "restore the file from a copy, or begin a new search"


class CheckedJournal(JournalFileBackend):
    """The file of a study, for the one process that drives the search."""

    def __init__(self, path: Path) -> None:
        """Open a journal, or begin one; a line that a killed driver had not finished is cut off.

        Attributes:
            cut: bytes of the line that was cut off.

        Raises:
            SearchError: a line is missing, foreign or damaged.
            StorageError: it cannot be read or written.
        """
        self._path = path
        self._waiting: list[dict[str, Any]] | None = None
        with one_line(path):
            content = path.read_bytes() if path.exists() else b""
            whole = content.rfind(b"\n") + 1
            self._number, self._check = _checked(path, content[:whole])
            self.cut = len(content) - whole
            if self.cut:
                # Optuna would read it together with the next line.
                with path.open("r+b") as file:
                    file.truncate(whole)
            super().__init__(str(path), JournalFileOpenLock(str(path), grace_period=LOCK_SECONDS))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the operations of the block in one go, at its end: every write waits for the disk.

        They are not seen by the block itself.

        Raises:
            StorageError: as `append_logs`.
        """
        if self._waiting is not None:
            yield
            return
        self._waiting = []
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            if waiting:
                self.append_logs(waiting)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add operations.

        Raises:
            StorageError: the disk is full or not writable; the journal is as it was.
        """
        if self._waiting is not None:
            self._waiting += logs
            return
        number, check, numbered = self._number, self._check, []
        for log in logs:
            number, check = number + 1, _next(check, log)
            numbered.append({**log, NUMBER: number, CHECK: check})
        size = self._path.stat().st_size
        with one_line(self._path):
            try:
                super().append_logs(numbered)
            except OSError:
                with self._path.open("r+b") as file:
                    file.truncate(size)
                raise
        self._number, self._check = number, check


def _checked(path: Path, content: bytes) -> tuple[int, int]:
    """Number and checksum of the last line; 0 for a journal from before lines were checked.

    Raises:
        SearchError: with the number of the first line that is not what it was.
    """
    number = check = 0
    for place, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            log = json.loads(line)
            operation = log["op_code"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SearchError(f"{path}, line {place}, is no record of a study; {REMEDY}") from None
        found, expected = log.pop(NUMBER, None), log.pop(CHECK, None)
        if found is None and (number == 0 or operation in NOTES):
            continue
        if found != number + 1:
            what = (
                "was not written by this search" if found is None else f"follows on {number} instead of {found!r} - 1"
            )
            raise SearchError(f"{path}, line {place}, {what}: lines are missing or were added; {REMEDY}")
        number, check = number + 1, _next(check, log)
        if check != expected:
            raise SearchError(f"{path}, line {place}, was altered; {REMEDY}")
    return number, check


def _next(check: int, log: dict[str, Any]) -> int:
    # As it will be read: JSON knows fewer types than Python.
    return zlib.crc32(json.dumps(json.loads(json.dumps(log)), sort_keys=True).encode(), check)
