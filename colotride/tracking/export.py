"""MLflow: every run's configuration, curves and scores in one store, so that runs are compared in its pages.

Nothing here waits for the store. What is to be recorded goes into an outbox in the run's own folder, and a thread brings
it from there to MLflow; a store that is down, slow or far away delays the record, never the work.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colotride.config import RunConfig
from colotride.errors import ConfigurationError
from colotride.tracking.delivery import Carrier
from colotride.tracking.names import dataset_of, epoch_metrics, final_metrics, flat_parameters, run_tags, test_metrics
from colotride.tracking.outbox import LINES, Entry, Outbox
from colotride.tracking.system_metrics import SystemMetrics
from colotride.training.records import EpochRecord, Outcome

DEFAULT_URI = "sqlite:///mlflow.db"
FOLDER = "mlflow"
"""Of the outbox, within the folder of a run or a search."""

SCHEMES = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")

LAST_SECONDS = 10.0
"""How long the end of a run waits for a store that is out of reach."""


class Tracker:
    """Records the runs of one folder, each under a key of ours.

    Attributes:
        uri: the store, whatever folder it is opened from.
    """

    def __init__(self, uri: str, folder: Path, warn: Callable[[str], None] | None = None) -> None:
        """Open the record of a folder; what a former process could not send is sent now.

        Args:
            uri: `sqlite:///file`, or the address of a tracking server; a record that was begun keeps its own.
            folder: of the run or the search.
            warn: takes each line that a person should see; standard error by default.

        Raises:
            ConfigurationError: not an address that MLflow knows.
        """
        # The first use of a local store reports every table that it makes.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # A server that does not answer is asked again by us.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        if not uri.startswith(SCHEMES):
            raise ConfigurationError(
                f"tracking URI {uri!r} is not one that MLflow knows; give sqlite:///FILE or http://HOST:PORT"
            )
        self._warn = warn or (lambda line: print(line, file=sys.stderr))
        self._outbox = Outbox(folder / FOLDER)
        self._begun: set[str] = set()
        self._logged: set[tuple[str, str, int]] = set()
        self.uri = absolute(uri)
        for entry in self._outbox.every():
            self.uri = entry.get("uri", self.uri)
            self._note(entry)
        self._carrier = Carrier(self._outbox, self.uri, self._warn)

    def start(
        self,
        key: str,
        name: str,
        *,
        parameters: Mapping[str, str],
        tags: Mapping[str, str],
        parent: str | None = None,
        dataset: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a run, as a child of another one where `parent` names its key; one that was begun is continued."""
        if key in self._begun:
            return
        commit = git_commit()
        known = {} if commit is None else {"mlflow.source.git.commit": commit, "git_commit": commit}
        self._put(
            key, "start", uri=self.uri, name=name, parent=parent, parameters=dict(parameters), tags={**tags, **known},
            dataset=None if dataset is None else dict(dataset),
        )  # fmt: skip

    def metrics(self, key: str, values: Mapping[str, float], step: int = 0) -> None:
        """Record values of one step; a name that has a value at this step keeps it."""
        new = {name: value for name, value in values.items() if (key, name, step) not in self._logged}
        if new:
            self._put(key, "metrics", metrics=new, step=step)

    def tags(self, key: str, values: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._put(key, "tags", tags=dict(values))

    def artifact(self, key: str, path: Path, below: str | None = None) -> None:
        """Keep a file with a run, in a folder of its artifacts where `below` names one."""
        self._put(key, "artifact", path=str(path.absolute()), below=below)

    def register(self, key: str, folder: Path, name: str, scores: Mapping[str, float]) -> None:
        """Register the model of a run's folder; see `registry.register`."""
        self._put(key, "register", folder=str(folder.absolute()), name=name, scores=dict(scores))

    def end(self, key: str, *, failed: bool = False) -> None:
        """Close a run."""
        self._put(key, "end", status="FAILED" if failed else "FINISHED")

    def run_id(self, key: str) -> str | None:
        """What MLflow calls a run; None until it has been told of it."""
        return self._outbox.sent.runs.get(key)

    def close(self, seconds: float = LAST_SECONDS) -> int:
        """Wait for what is on its way, see `Carrier.close`; returns how many entries are kept for later."""
        left = self._carrier.close(seconds)
        if left:
            self._warn(
                f"warning: {left} entries for MLflow are kept in {self._outbox.folder}; "
                f"send them with: python scripts/sync.py {self._outbox.folder.parent}"
            )
        return left

    def _put(self, key: str, do: str, **values: Any) -> None:
        entry = {"run": key, "do": do, "time": int(time.time() * 1000), **values}
        self._note(entry)
        self._outbox.put(entry)

    def _note(self, entry: Entry) -> None:
        if entry["do"] == "start":
            self._begun.add(entry["run"])
        elif entry["do"] == "metrics":
            self._logged |= {(entry["run"], name, entry["step"]) for name in entry["metrics"]}


TEST_STEP = 1_000_000
"""Step of the final scores on the test side: behind every epoch, so that they are a run's latest values."""


class RunRecord:
    """One run of the trainer in MLflow; its folder holds the record, so that a resumed run is continued, not doubled."""

    KEY = "run"

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._system: SystemMetrics | None = None

    @classmethod
    def open(cls, directory: Path, config: RunConfig, uri: str | None) -> "RunRecord":
        """Continue the record of a run's folder, or begin one; the machine is watched from now on.

        Args:
            directory: the run's folder.
            config: of the run.
            uri: the store; None for $MLFLOW_TRACKING_URI or the local one.
        """
        tracker = Tracker(uri or default_uri(), directory)
        tracker.start(
            cls.KEY,
            directory.name,
            parameters=flat_parameters(config),
            tags=run_tags(config, "train"),
            dataset=dataset_of(config),
        )
        tracker.artifact(cls.KEY, directory / "config.yaml")
        record = cls(tracker)
        record._system = watch(tracker, cls.KEY)
        return record

    @classmethod
    def existing(cls, directory: Path) -> "RunRecord | None":
        """The record of a run's folder, None where it has none."""
        return cls(Tracker(default_uri(), directory)) if (directory / FOLDER / LINES).is_file() else None

    def epoch(self, record: EpochRecord) -> None:
        """Add an epoch to the curves."""
        self._tracker.metrics(self.KEY, epoch_metrics(record), record.epoch)

    def end(self, outcome: Outcome) -> None:
        """Close the run with its status; an interrupted one stays open."""
        if self._system is not None:
            self._system.stop()
        last = outcome.history[-1] if outcome.history else None
        if last is not None:
            self._tracker.metrics(self.KEY, final_metrics(last.validation), last.epoch)
        self._tracker.tags(self.KEY, {"status": outcome.status, "reason": outcome.reason})
        if outcome.status != "interrupted":
            self._tracker.end(self.KEY, failed=outcome.status != "finished")
        self._tracker.close()

    def evaluation(self, scores: Mapping[str, float], *files: Path) -> None:
        """Add the scores on the test side and the files that hold them."""
        self._tracker.metrics(self.KEY, test_metrics(scores))
        self._tracker.metrics(self.KEY, final_metrics(scores), TEST_STEP)
        for file in files:
            self._tracker.artifact(self.KEY, file)
        self._tracker.close()


def watch(tracker: Tracker, key: str) -> SystemMetrics:
    """Record how busy this machine is with a run, until it is stopped."""
    started = time.time()
    return SystemMetrics(lambda sample: tracker.metrics(key, sample, int(time.time() - started)))


def default_uri() -> str:
    """The store that $MLFLOW_TRACKING_URI names, or the local one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def absolute(uri: str) -> str:
    """The same store from whatever folder it is opened."""
    prefix = "sqlite:///"
    return prefix + str(Path(uri.removeprefix(prefix)).absolute()) if uri.startswith(prefix) else uri


def git_commit() -> str | None:
    """The commit of the code that runs, None outside a checkout."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
