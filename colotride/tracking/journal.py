"""An append-only file of what is to be recorded: the writer never waits for the reader."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Journal:
    """One line of JSON per entry; one process writes at a time.

    A process that dies loses at most the line that it was writing, and the next one cuts that line off.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal; the file is created with its first entry."""
        self.path = path
        self._lock = threading.Lock()
        self.arrived = threading.Event()
        """Set by every entry that is appended."""
        self.entries = 0
        """How many entries the journal holds."""
        if path.is_file():
            content = path.read_bytes()
            self.entries = content.count(b"\n")
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)

    def append(self, entry: Entry) -> None:
        """Add an entry; once this returns, the entry survives the death of this process."""
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line)
            self.entries += 1
        self.arrived.set()

    def read(self, position: int = 0) -> Iterator[tuple[Entry, int]]:
        """The entries from a position in bytes onwards, each with the position after it."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield json.loads(line), position
