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

from tests.commands import environment, run
from tests.marked_processes import MARK, marked

SHARED_MEMORY = Path("/dev/shm")
SECONDS = 30
"""After which nothing of a command that has ended may be left."""

SEARCH = (
    "search", "--name", "first", "--results", "made", "--trials", "2", "--concurrent", "1", "--max-epochs", "4",
    "--stopping", "none", "--tracking-uri", "sqlite:///mlflow.db",
    "--run.data.pairs-per-epoch", "64", "--run.data.pairs-per-batch", "8", "--run.pgd.steps", "2",
    "--run.validation.queries", "4", "--run.validation.steps", "1",
)  # fmt: skip


def in_shared_memory(pids):
    """Files in shared memory that carry the id of one of the processes in their names."""
    names = (path.name for path in SHARED_MEMORY.iterdir())
    return [name for name in names if pids & {int(number) for number in re.findall(r"\d+", name)}]


def ended_by(number, place, begun, *more):
    """Begin a search, signal it as soon as the condition holds, and take its code, its output and what it leaves."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "colotride", *SEARCH, *more],
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


def told_how_to_go_on(ended):
    code, out, err, processes, memory = ended
    assert code == 143, (out, err)
    assert "--resume first" in out
    for word in ("Traceback", "*** SIGTERM", "Fatal Python error", "Stack trace"):
        assert word not in out + err
    assert not processes
    assert not memory


@pytest.mark.slow
def test_a_search_that_is_terminated_before_its_first_trial_says_how_to_go_on(tmp_path):
    told_how_to_go_on(ended_by(signal.SIGTERM, tmp_path, lambda folder: (folder / "search.json").exists()))


@pytest.mark.slow
def test_a_search_that_is_terminated_in_its_verdict_goes_on_there(tmp_path):
    def judging(folder):
        return any((folder / "verdict").rglob("history.jsonl"))

    told_how_to_go_on(ended_by(signal.SIGTERM, tmp_path, judging, "--verdict-seeds", "1"))
    trials = [path.read_bytes() for path in sorted((tmp_path / "made/first/trials").rglob("history.jsonl"))]
    done = run("search", "--results", "made", "--resume", "first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Verdict over all seeds" in done.stdout
    again = [path.read_bytes() for path in sorted((tmp_path / "made/first/trials").rglob("history.jsonl"))]
    assert again == trials, "no trial was trained again"
