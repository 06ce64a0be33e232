"""Running the project's commands as a user does."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LIMIT = 900
"""Seconds that a command may take, on a machine that does much else."""

WARM = multiprocessing.get_context("forkserver")
"""A process of its own for every command, forked from one that has imported what takes seconds to import."""
WARM.set_forkserver_preload(
    [
        "colotride.api",
        "colotride.cli.train",
        "colotride.cli.evaluate",
        "colotride.tune.api",
        "torch._dynamo",
        "torchvision",
        "sklearn.datasets",
    ]
)


LEFT_OUT = ("MLFLOW_TRACKING_URI", "COLOTRIDE_DATA", "RAY_AUTH_MODE")
"""What a test or Ray sets for its own process. Ray reads the last of these on import, which a forked command has behind
it: it would send no token to a Ray that asks for one."""


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | changes


def run(script: str, *arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the project, or a subcommand of `colotride`, in a folder, and take what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        told = [Path(folder) / name for name in ("stdout", "stderr")]
        process = WARM.Process(target=_execute, args=(script, arguments, cwd, environment(**changes), told))
        process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([script, *arguments], LIMIT)
        return subprocess.CompletedProcess([script, *arguments], process.exitcode, *(path.read_text() for path in told))


def _execute(script, arguments, cwd, environ, told):
    """Become `python script arguments`, or `python -m colotride script arguments`, in the folder."""
    for stream, path in zip((1, 2), told, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.modules["torch"].set_num_threads(int(environ["OMP_NUM_THREADS"]))
    if script.endswith(".py"):
        program = ROOT / script
        sys.argv, sys.path[:0] = [str(program), *arguments], [str(program.parent)]
        runpy.run_path(str(program), run_name="__main__")
    else:
        sys.argv, sys.path[:0] = ["colotride", script, *arguments], [str(cwd)]
        runpy.run_module("colotride", run_name="__main__", alter_sys=True)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which bad input was refused."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
