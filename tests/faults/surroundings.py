"""Bad surroundings for the project's commands, which run in this process, so that hundreds of cases take seconds."""

import contextlib
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from colotride.cli import main

TINY = (
    "--run.data.pairs-per-epoch", "16", "--run.data.pairs-per-batch", "8", "--run.pgd.steps", "1",
    "--run.validation.queries", "4", "--run.validation.steps", "1", "--run.evaluation.bootstrap", "10",
    "--run.evaluation.queries", "4", "--run.evaluation.steps", "1",
)  # fmt: skip
"""Settings of a run that takes a moment."""

NO_DOCUMENT = {
    "empty": b"",
    "binary": bytes(range(256)) * 8,
    "zeros": b"\0" * 4096,
    "latin-1": "größe: 1\n".encode("latin-1"),
    "utf-16": "data: {name: digits}\n".encode("utf-16"),
    "a list": b"[1, 2]\n",
    "a number": b"7\n",
    "nothing": b"null\n",
    "a text": b'"data"\n',
    "a web page": b"<!doctype html>\n<title>502</title>\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "an archive": b"PK\x03\x04" + bytes(64),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "an open bracket": b'{"data": ',
    "nested lists": b"[" * 100_000,
    "nested sections": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "nested blocks": "".join(f"{' ' * depth}a:\n" for depth in range(300)).encode(),
    "a date that is none": b"data: 2026-13-45\n",
    "a foreign tag": b"data: !!python/object/apply:os.getcwd []\n",
    "an unknown key": b'{"nonsense": 1}\n',
}
"""Contents of files that are no configuration, space, plan or record."""


@dataclass(frozen=True)
class Ended:
    """A command that has run in this process."""

    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Ended:
    """Run a subcommand as its users do, and take its exit code and what it prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main.run(str(words[0]), [str(word) for word in words[1:]])
    out, err = capsys.readouterr()
    return Ended(ended.value.code, out, err)


def refused(ended: Ended, *named: object) -> str:
    """The one line with which a command refused, which names what it is about."""
    progress = ("warning: ", "epoch ", "Resuming ")
    lines = [line for line in ended.err.strip().splitlines() if line and not line.startswith(progress)]
    assert ended.code == 2, ended
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: "), ended.err
    assert "Traceback" not in ended.out + ended.err
    assert len(lines[0]) < 1000, ended.err
    for one in named:
        assert str(one) in lines[0], (one, lines[0])
    return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def full_disk(number: int):
    """A disk that takes no file any more, for the reason of this number."""

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    before = os.fsync
    os.fsync = fail
    try:
        yield
    finally:
        os.fsync = before


@contextlib.contextmanager
def no_file_longer_than(size: int):
    """The kernel refuses to let any file grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
