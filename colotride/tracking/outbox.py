"""A queue on disk: what is to be sent somewhere, kept until it is there.

Whoever writes an entry never waits for whoever reads it. Each entry is a line of JSON in `outbox.jsonl`; how far the
lines have been sent, and what the other side answered, stands in `sent.json`, replaced atomically. A process that dies
loses at most the line that it was writing; what may have been sent twice is told apart by its key on the other side.
"""

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colotride.io import write_atomically

Entry = dict[str, Any]

LINES, SENT = "outbox.jsonl", "sent.json"


@dataclass
class Sent:
    """How far an outbox has been emptied."""

    position: int = 0
    """Bytes of the lines that were sent."""
    runs: dict[str, str] = field(default_factory=dict)
    """What the other side calls our keys."""
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of the outbox: makes its keys unique wherever they are sent."""


class Outbox:
    """The queue of one folder; one process writes to it at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the queue of a folder; the folder is made with the first entry.

        Args:
            folder: of the queue alone.
        """
        self.folder = folder
        self._lines = folder / LINES
        self._lock, self._arrived = threading.Lock(), threading.Condition()
        known = folder / SENT
        self.sent = Sent(**json.loads(known.read_text())) if known.is_file() else Sent()
        if self._lines.is_file():
            whole = self._lines.read_bytes().rfind(b"\n") + 1
            with self._lines.open("r+b") as file:
                file.truncate(whole)

    def put(self, entry: Entry) -> None:
        """Append an entry; it is on disk on return, as far as a process that dies is concerned."""
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            if not (self.folder / SENT).is_file():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._save()
            with self._lines.open("ab") as file:
                file.write(line)
        with self._arrived:
            self._arrived.notify_all()

    def every(self) -> Iterator[Entry]:
        """All entries, sent or not."""
        for entry, _ in self._from(0):
            yield entry

    def waiting(self, limit: int) -> list[tuple[Entry, int]]:
        """The next entries that were not sent, each with the position behind it."""
        found = []
        for item in self._from(self.sent.position):
            found.append(item)
            if len(found) == limit:
                break
        return found

    @property
    def left(self) -> int:
        """How many entries were not sent."""
        return sum(1 for _ in self._from(self.sent.position))

    def done(self, position: int) -> None:
        """Note that everything before a position was sent."""
        self.sent.position = position
        self._save()

    def called(self, key: str, name: str) -> None:
        """Note what the other side calls a key."""
        self.sent.runs[key] = name
        self._save()

    def wait(self, seconds: float) -> None:
        """Sleep until something is put in, or so many seconds at most."""
        with self._arrived:
            self._arrived.wait(seconds)

    def _save(self) -> None:
        write_atomically(self.folder / SENT, json.dumps(self.sent.__dict__).encode())

    def _from(self, position: int) -> Iterator[tuple[Entry, int]]:
        if not self._lines.is_file():
            return
        with self._lines.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield json.loads(line), position
