"""Sends a journal to a store in the background, as long as its process lives."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mlflow.exceptions import MlflowException

from colotride.errors import ColoTrideError
from colotride.io import write_atomically
from colotride.tracking.journal import Entry, Journal
from colotride.tracking.store import Store

BATCH = 1000
"""Metrics that MLflow takes in one request."""

PAUSES = (0.5, 1, 2, 5, 10, 30, 60)
"""Seconds between attempts to reach a store that does not answer."""

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
"""Error codes of MLflow for requests that would be refused again."""

ENTRY_SECONDS = 60.0
"""How long `close` waits for a single entry while the store answers; an entry may be a large model."""


class Delivery:
    """A thread that sends the entries of a journal; a store that has replaced another one gets all of them."""

    def __init__(self, journal: Journal, sent: Path, store: Store, warn: Callable[[str], None]) -> None:
        """Start to send.

        Args:
            journal: to be sent.
            sent: file that says which store holds the journal up to which position.
            store: where to.
            warn: called with each line for the user.
        """
        self.store, self._journal, self._sent, self._warn = store, journal, sent, warn
        self._identity, self._position = "", 0
        # Whatever else that file holds, everything is sent again, which changes nothing in the store.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            known = json.loads(sent.read_bytes())
            store_name, position = str(known["store"]), int(known["position"])
            if journal.begins_line(position):
                self._identity, self._position = store_name, position
        self._done = sum(1 for _, end in journal.read() if end <= self._position)
        self.refused = 0
        """Entries that the store refuses."""
        self._failures, self._checked, self._closing = 0, False, threading.Event()
        threading.Thread(target=self._work, name="mlflow-delivery", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many entries the store may lack: all of them until it has been reached."""
        return self._journal.entries - (self._done if self._checked else 0)

    def close(self, seconds: float) -> int:
        """Wait while the store takes entries, then stop; returns how many are left.

        The store is checked once more: it may have been deleted since the last entry.

        Args:
            seconds: to wait for a store that is out of reach.
        """
        self._checked = False
        self._journal.arrived.set()
        waiting, since = self.waiting, time.monotonic()
        while waiting and time.monotonic() - since < (seconds if self._failures else max(seconds, ENTRY_SECONDS)):
            time.sleep(0.02)
            if self.waiting < waiting:
                waiting, since = self.waiting, time.monotonic()
        self._closing.set()
        return self.waiting

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                if not self._step():
                    self._journal.arrived.wait(0.2)
                self._failures = 0
            except Exception as error:
                # Whatever MLflow, its database or the network raise, the record waits and the work continues.
                if self._failures == 0:
                    self._warn(
                        f"warning: MLflow store {self.store.uri} is out of reach ({first_line(error)}); going on, "
                        f"values are kept in {self._journal.path.parent} and sent when it is back"
                    )
                self._closing.wait(PAUSES[min(self._failures, len(PAUSES) - 1)])
                self._failures += 1

    def _step(self) -> bool:
        """Send the next entries; False where there are none."""
        self._journal.arrived.clear()
        if not self._journal.entries:
            return False
        checking = not self._checked
        if checking:
            self.store.forget()
        identity = self.store.identity()
        if identity != self._identity:
            if self._position:
                self._warn(f"warning: MLflow store {self.store.uri} is a new one; everything is sent to it again")
            self._identity, self._position, self._done, self.refused = identity, 0, 0, 0
        self._checked = self._checked or checking
        entries, position = self._next()
        if not entries:
            return False
        try:
            self.store.write(entries)
        except (MlflowException, ColoTrideError) as error:
            code = getattr(error, "error_code", None)
            if code is not None and code not in REFUSALS:
                raise
            # A run that is gone may mean that its store is.
            self.store.forget()
            if self.store.identity() != identity:
                return True
            self.refused += len(entries)
            self._warn(f"warning: MLflow does not take an entry ({first_line(error)}); it is missing there")
        self._position, self._done = position, self._done + len(entries)
        # What was refused is sent again when the journal is opened the next time.
        if not self.refused:
            state = {"store": identity, "position": position}
            write_atomically(self._sent, json.dumps(state).encode())
        return True

    def _next(self) -> tuple[list[Entry], int]:
        """The next entry, or several that go into one request: metrics and tags of one run."""
        entries: list[Entry] = []
        position, size = self._position, 0
        for entry, end in self._journal.read(self._position):
            size += len(entry.get("metrics", ()))
            together = entry["do"] in ("metrics", "tags") and (not entries or entry["run"] == entries[0]["run"])
            if entries and (not together or size > BATCH):
                break
            entries.append(entry)
            position = end
            if not together:
                break
        return entries, position


def first_line(error: BaseException) -> str:
    """The message of an error in one short line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
