"""A search that is told to end leaves its trials resumable, and no process and no shared memory behind."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.commands import environment

SHARED_MEMORY = Path("/dev/shm")
SECONDS = 30
"""After which nothing of a command that has ended may be left."""

MARK = "COLOTRIDE_TEST_MARK"
"""Variable of the environment that every process of one search inherits."""

SEARCH = (
    "search", "--name", "first", "--results", "made", "--trials", "2", "--concurrent", "1", "--max-epochs", "4",
    "--stopping", "none", "--no-verdict", "--tracking-uri", "sqlite:///mlflow.db",
    "--run.data.pairs-per-epoch", "64", "--run.data.pairs-per-batch", "8", "--run.pgd.steps", "2",
    "--run.validation.queries", "4", "--run.validation.steps", "1",
)  # fmt: skip


def marked(mark):
    """Ids of the living processes of a search."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def in_shared_memory(pids):
    """Files in shared memory that carry the id of one of the processes in their names."""
    names = (path.name for path in SHARED_MEMORY.iterdir())
    return [name for name in names if pids & {int(number) for number in re.findall(r"\d+", name)}]


def ended_by(number, place, begun):
    """Begin a search, signal it as soon as the condition holds, and take its code, its output and what it leaves."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "colotride", *SEARCH],
        cwd=place,
        env=environment(**{MARK: mark}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pids: set[int] = set()
    try:
        deadline = time.monotonic() + 200
        while not begun(place / "made/first") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()
        pids = marked(mark)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        left = time.monotonic() + SECONDS
        while (marked(mark) or in_shared_memory(pids)) and time.monotonic() < left:
            time.sleep(0.2)
        return process.returncode, out, err, marked(mark), in_shared_memory(pids)
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_a_search_that_is_terminated_before_its_first_trial_says_how_to_go_on(tmp_path):
    begun = tmp_path / "made/first/search.json"
    code, out, err, processes, memory = ended_by(signal.SIGTERM, tmp_path, lambda _: begun.exists())
    assert code == 143, (out, err)
    assert "--resume first" in out
    for word in ("Traceback", "*** SIGTERM", "Fatal Python error", "Stack trace"):
        assert word not in out + err
    assert not processes
    assert not memory
