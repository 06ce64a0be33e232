"""Running the project's commands as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "COLOTRIDE_DATA")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | changes


def run(script: str, *arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the project, or a subcommand of `colotride`, in a folder, and take what it prints."""
    called = [str(ROOT / script)] if script.endswith(".py") else ["-m", "colotride", script]
    return subprocess.run(
        [sys.executable, *called, *arguments],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which bad input was refused."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
