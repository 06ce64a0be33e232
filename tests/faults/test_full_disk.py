"""A search whose disk is really full in the middle: one line, and with room the same command brings it to its end."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.commands import environment, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk"),
]

SEARCH = (
    "search", "--name", "first", "--results", "made", "--trials", "3", "--concurrent", "1", "--stopping", "none",
    "--no-verdict", "--tracking-uri", "sqlite:///mlflow.db", "--run.training.epochs", "6",
    "--run.data.pairs-per-epoch", "256", "--run.data.pairs-per-batch", "8", "--run.pgd.steps", "2",
    "--run.validation.queries", "4", "--run.validation.steps", "1",
)  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """The folder of results, a disk of 64 MB."""
    folder = tmp_path / "made"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file):
    """Take what is left of the disk that a file lies on."""
    with file.open("wb") as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(1 << 16))
            ballast.flush()


def test_a_search_on_a_disk_that_fills_is_one_line_and_continues_to_its_end(made, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "colotride", *SEARCH],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not any((made / "first/trials").rglob("history.jsonl")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    fill(made / "ballast")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, (out, err)
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    assert "No space left on device" in lines[0]
    (made / "ballast").unlink()
    done = run("search", "--results", "made", "--resume", "first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((made / "first/trials.json").read_text())
    assert [(trial["number"], trial["status"], trial["epoch"], trial["reason"]) for trial in told] == [
        (number, "finished", 6, "") for number in (1, 2, 3)
    ]
