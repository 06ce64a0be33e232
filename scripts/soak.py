"""Disturb a search until it is done, and count: every trial must be exactly once in the study, in MLflow and in the report.

The search of many short trials records to an MLflow server. At random moments its driver, one of its workers or
all of its processes are killed (SIGKILL), or the server is killed and comes back, or stands still for a while. A driver that is gone is started again
with `--resume`. The exit code is 0 when nothing was lost, doubled or left behind.

Examples:
    python scripts/soak.py
    python scripts/soak.py --trials 200 --disturbances 40 --directory runs/soak --json
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from mlflow import MlflowClient

from colotride.io import write_atomically
from colotride.tune.study import STUDY

NAME, EPOCHS = "soak", 2
MARK = "COLOTRIDE_SOAK_MARK"
"""Variable of the environment that every process of the search inherits."""

SETTINGS = (
    "--dataset", "digits", "--stopping", "none", "--no-verdict", "--sampler", "random",
    "--run.training.epochs", str(EPOCHS), "--run.data.pairs-per-epoch", "32", "--run.data.pairs-per-batch", "8",
    "--run.pgd.steps", "2", "--run.validation.queries", "4", "--run.validation.steps", "1",
)  # fmt: skip

KINDS = ("driver", "all processes", "worker", "server killed", "server stopped")
START_SECONDS, GONE_SECONDS = 240, 30
"""How long the server may take to answer, and how long processes of a search that has ended may remain."""


@dataclass
class Soak:
    """What was done and what was found."""

    trials: int
    disturbances: list[str] = field(default_factory=list)
    starts: int = 0
    """Of the driver."""
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What was lost, doubled or left behind."""


class Server:
    """An MLflow server on loopback that can be killed, stopped and started again."""

    def __init__(self, directory: Path) -> None:
        """Start it; its store and its files lie in the directory."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._directory = directory
        self._returning: threading.Timer | None = None
        self.start()

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        store, files = f"sqlite:///{self._directory}/server.db", f"{self._directory}/artifacts"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", store, "--artifacts-destination", files]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._directory, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(f"the MLflow server ended; see {self._directory}/server.log")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise SystemExit(f"the MLflow server never answered; see {self._directory}/server.log")

    def kill(self) -> None:
        """End it at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def killed_for(self, seconds: float) -> None:
        """Be gone, and come back by itself."""
        self.settle()
        self.kill()
        self._return_after(seconds, self.start)

    def stopped_for(self, seconds: float) -> None:
        """Accept connections and answer none, and go on by itself."""
        self.settle()
        os.killpg(self._process.pid, signal.SIGSTOP)
        self._return_after(seconds, lambda: os.killpg(self._process.pid, signal.SIGCONT))

    def settle(self) -> None:
        """Wait until it is back."""
        if self._returning is not None:
            self._returning.join()
            self._returning = None

    def _return_after(self, seconds: float, action: Callable[[], None]) -> None:
        self._returning = threading.Timer(seconds, action)
        self._returning.start()


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="short trials of the search (default: 200)")
    parser.add_argument("--disturbances", type=int, default=40, help="how many there are (default: 40)")
    parser.add_argument("--every", type=float, default=10, help="mean seconds between two of them (default: 10)")
    parser.add_argument("--concurrent", type=int, default=2, help="trials at once (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the kinds (default: 0)")
    parser.add_argument("--directory", type=Path, default=Path("runs/soak"), help="a new folder (default: runs/soak)")
    parser.add_argument("--json", action="store_true", help="print the result for a program")
    asked = parser.parse_args()
    if min(asked.trials, asked.concurrent) < 1 or asked.disturbances < 0 or asked.every <= 0:
        parser.error("--trials and --concurrent take 1 or more, --disturbances 0 or more, --every more than 0")
    if asked.directory.exists():
        parser.error(f"--directory {asked.directory} exists; give a new folder")
    asked.directory.mkdir(parents=True)
    found = soak(
        asked.directory.absolute(), asked.trials, asked.disturbances, asked.every, asked.concurrent, asked.seed
    )
    write_atomically(asked.directory / "soak.json", json.dumps(asdict(found), indent=1).encode())
    if asked.json:
        print(json.dumps(asdict(found)))
    else:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(Counter(found.disturbances).items()))
        print(f"{found.trials} trials in {found.seconds:.0f} s, the driver started {found.starts} times; {kinds}")
        print("ended: " + ", ".join(f"{count} {status}" for status, count in sorted(found.statuses.items())))
        print("\n".join(found.faults) or "every trial exactly once in study, MLflow and report; nothing left behind")
    return 1 if found.faults else 0


def soak(directory: Path, trials: int, disturbances: int, every: float, concurrent: int, seed: int) -> Soak:
    """Disturb a search until it is done, and see what there is.

    Args:
        directory: of the search, the server's store and all logs.
        trials: of the search.
        disturbances: how many there are.
        every: mean seconds between two of them.
        concurrent: trials at once.
        seed: of the moments and the kinds.
    """
    found, began = Soak(trials), time.monotonic()
    server, mark = Server(directory), uuid.uuid4().hex
    try:
        _disturbed(found, directory, server, mark, disturbances, every, concurrent, random.Random(seed))
        server.settle()
        deadline = time.monotonic() + GONE_SECONDS
        while _marked(mark) and time.monotonic() < deadline:
            time.sleep(0.2)
        found.faults += [f"process {pid} is left: {name}" for pid, name in _marked(mark).items()]
        # What a driver could not send before it was killed is sent here.
        sync = subprocess.run(
            [sys.executable, "-m", "colotride", "sync", str(directory / NAME)], capture_output=True, text=True
        )
        if sync.returncode:
            found.faults.append(f"sync ended with {sync.returncode}: {(sync.stdout + sync.stderr).strip()}")
        found.faults += study_faults(directory / NAME, trials, found)
        found.faults += report_faults(directory / NAME, trials)
        found.faults += mlflow_faults(server.uri, trials)
    finally:
        server.settle()
        server.kill()
        for pid in _marked(mark):
            os.kill(pid, signal.SIGKILL)
    found.seconds = time.monotonic() - began
    return found


def _disturbed(
    found: Soak,
    directory: Path,
    server: Server,
    mark: str,
    disturbances: int,
    every: float,
    concurrent: int,
    draw: random.Random,
) -> None:
    first = ("--name", NAME, "--trials", str(found.trials), "--concurrent", str(concurrent), *SETTINGS)
    deck: list[str] = []
    while True:
        begun = (directory / NAME / "search.json").exists()
        what = ("--resume", NAME) if begun else (*first, "--tracking-uri", server.uri)
        command = [sys.executable, "-m", "colotride", "search", "--results", str(directory), *what]
        with (directory / "search.log").open("ab") as log:
            driver = subprocess.Popen(
                command, cwd=directory, env=os.environ | {MARK: mark, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
            )
        found.starts += 1
        killed = False
        while driver.poll() is None:
            if len(found.disturbances) >= disturbances:
                driver.wait()
                break
            try:
                driver.wait(draw.expovariate(1 / every))
                break
            except subprocess.TimeoutExpired:
                # Every kind in turn, in any order.
                deck = deck or draw.sample(KINDS, len(KINDS))
                kind = deck.pop()
            if kind in ("driver", "all processes"):
                # The driver first, so that it cannot see its workers die. Alone, its workers may outlive it for seconds.
                driver.kill()
                driver.wait()
                killed = True
                for pid in _marked(mark) if kind == "all processes" else ():
                    _kill(pid)
            elif kind == "worker":
                workers = [pid for pid, name in _marked(mark).items() if name.startswith("ray::")]
                if not workers:
                    deck.insert(0, kind)
                    continue
                _kill(draw.choice(workers))
            elif kind == "server killed":
                server.killed_for(draw.uniform(0, 5))
            else:
                server.stopped_for(draw.uniform(0, 10))
            found.disturbances.append(kind)
        if driver.returncode == 0:
            return
        if not killed and (driver.returncode not in (1, 130, 143) or found.starts > 3 * disturbances + 3):
            lines = (directory / "search.log").read_text().strip().splitlines()
            found.faults.append(f"the search ended with {driver.returncode}: {lines[-1] if lines else 'no word'}")
            return


def study_faults(folder: Path, trials: int, found: Soak) -> list[str]:
    """What is wrong with the study and with trials.json."""
    if not (folder / "optuna.journal").exists():
        return ["there is no study"]
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    study = optuna.load_study(study_name=STUDY, storage=optuna.storages.JournalStorage(backend))
    faults = []
    numbers = [trial.number + 1 for trial in study.trials]
    if numbers != list(range(1, trials + 1)):
        faults.append(f"the study has trials {_brief(numbers)} instead of 1 to {trials}")
    faults += [
        f"trial {trial.number + 1} of the study is open" for trial in study.trials if not trial.state.is_finished()
    ]
    if not (folder / "trials.json").exists():
        return [*faults, "there is no trials.json"]
    told = json.loads((folder / "trials.json").read_text())
    found.statuses = dict(Counter(trial["status"] for trial in told))
    if [trial["number"] for trial in told] != list(range(1, trials + 1)):
        faults.append(f"trials.json has trials {_brief([trial['number'] for trial in told])}")
    faults += [
        f"trial {trial['number']} finished with epochs {sorted(trial['curves']['ARS'])}"
        for trial in told
        if trial["status"] == "finished" and trial["epoch"] != EPOCHS
    ]
    return faults


def report_faults(folder: Path, trials: int) -> list[str]:
    """What is wrong with the table of trials in the report."""
    if not (folder / "report.html").exists():
        return ["there is no report.html"]
    page = (folder / "report.html").read_text()
    table = page.partition('<table class="trials"')[2]
    rows = [int(number) for number in re.findall(r"<tr[^>]*><td>(\d+)</td>", table)]
    return [] if rows == list(range(1, trials + 1)) else [f"the report has trials {_brief(rows)}"]


def mlflow_faults(uri: str, trials: int) -> list[str]:
    """What is wrong with the runs in MLflow."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("colotride")
    if experiment is None:
        return ["MLflow has no experiment"]
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    names = Counter(run.info.run_name for run in runs if run.data.tags.get("kind") == "trial")
    wanted = Counter(f"trial {number}" for number in range(1, trials + 1))
    faults = [
        f"MLflow has {names[name]} runs of {name}" for name in sorted(wanted | names) if names[name] != wanted[name]
    ]
    searches = [run for run in runs if run.data.tags.get("kind") == "search"]
    if len(searches) != 1:
        faults.append(f"MLflow has {len(searches)} runs of the search")
    for run in runs:
        if run.info.status == "RUNNING":
            faults.append(f"MLflow says that {run.info.run_name} is running")
        if run.data.tags.get("kind") == "trial" and "train/loss" in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
            if steps != list(range(1, len(steps) + 1)):
                faults.append(f"MLflow has epochs {steps} of {run.info.run_name}")
    return faults


def _marked(mark: str) -> dict[int, str]:
    """Living processes of the search, by their id, and what they call themselves."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _brief(numbers: list[int]) -> str:
    doubled = sorted(number for number, count in Counter(numbers).items() if count > 1)
    return f"{numbers[:3]}...{numbers[-3:]} ({len(numbers)}; doubled: {doubled or 'none'})"


if __name__ == "__main__":
    sys.exit(main())
