"""An append-only file of what is to be recorded: the writer never waits for the reader."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from colotride.disk import one_line

Entry = dict[str, Any]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)
    run: str
    time: int


class _Start(_Entry):
    do: Literal["start"]
    uri: str
    journal: str
    name: str
    parent: str | None
    parameters: dict[str, str]
    tags: dict[str, str]
    dataset: dict[str, Any] | None


class _Metrics(_Entry):
    do: Literal["metrics"]
    metrics: dict[str, float]
    step: int


class _Tags(_Entry):
    do: Literal["tags"]
    tags: dict[str, str]


class _Artifact(_Entry):
    do: Literal["artifact"]
    path: str
    below: str | None


class _Text(_Entry):
    do: Literal["text"]
    name: str
    text: str


class _Register(_Entry):
    do: Literal["register"]
    directory: str
    name: str
    scores: dict[str, float]
    description: str


class _View(_Entry):
    do: Literal["view"]
    view: str
    name: str


class _End(_Entry):
    do: Literal["end"]
    status: str


_ENTRY: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Start | _Metrics | _Tags | _Artifact | _Text | _Register | _View | _End, Field(discriminator="do")]
)


class Journal:
    """One line of JSON per entry; one process writes at a time.

    A process that dies loses at most the line that it was writing, and the next one cuts that line off. Lines that
    are no entries, because the file was damaged, are left out.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal; the file is created with its first entry."""
        self.path = path
        self._lock = threading.Lock()
        self.arrived = threading.Event()
        """Set by every entry that is appended."""
        self.entries = 0
        """How many entries the journal holds."""
        self.damaged: list[int] = []
        """Numbers of the lines that are no entries."""
        with one_line(path):
            if not path.is_file():
                return
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with path.open("r+b") as file:
                    file.truncate(whole)
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
            if _entry(line) is None:
                self.damaged.append(number)
            else:
                self.entries += 1

    def append(self, entry: Entry) -> None:
        """Add an entry; once this returns, the entry survives the death of this process.

        Raises:
            StorageError: the disk is full or not writable; the journal is as it was.
        """
        line = json.dumps(entry).encode() + b"\n"
        with self._lock, one_line(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                try:
                    if file.write(line) < len(line):
                        # The disk took a part; the next write says why not all of it.
                        file.write(line[file.tell() - before :])
                except OSError:
                    file.truncate(before)
                    raise
            self.entries += 1
        self.arrived.set()

    def begins_line(self, position: int) -> bool:
        """Whether a position in bytes is the beginning of a line, or the end of the journal."""
        if position == 0 or not self.path.is_file():
            return position == 0
        with self.path.open("rb") as file:
            file.seek(position - 1)
            return file.read(1) == b"\n"

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
                entry = _entry(line)
                if entry is not None:
                    yield entry, position


def _entry(line: bytes) -> Entry | None:
    """The entry of a line; None where it is none."""
    try:
        entry: Entry = json.loads(line)
        _ENTRY.validate_python(entry)
    except (ValueError, RecursionError):
        return None
    return entry
