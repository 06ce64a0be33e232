"""MLflow: every run's configuration, curves and scores in one store, so that runs are compared in its pages.

All calls go through `MlflowClient` from one process. A store that cannot be reached never stops the work: what is
measured also lies in the runs' folders, so the tracker says so once and stays silent from then on.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pytorch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from torch import nn

from colotride.atomic import write_atomically
from colotride.config import RunConfig
from colotride.errors import ConfigurationError, ModelError
from colotride.foreign import modules_of_working_directory
from colotride.training import EpochRecord, Outcome

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "colotride"
PARENT_TAG = "mlflow.parentRunId"


def metric_name(name: str) -> str:
    """A score's name in letters that MLflow allows: `R@1` becomes `R_at_1`, `CA+` `CA_plus`, `ES:D` `ES_D`."""
    spelled = name.replace("@", "_at_").replace("+", "_plus").replace(":", "_").replace(" ", "_")
    return spelled[:-1] + "_minus" if spelled.endswith("-") else spelled


def flat_parameters(config: RunConfig) -> dict[str, str]:
    """Every setting of a run under its dotted name ("pgd.steps"), as text."""
    flat: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}" if path else name)
        else:
            flat[path] = f"{value:.6g}" if isinstance(value, float) else str(value)

    walk(config.model_dump(mode="json"), "")
    return flat


def epoch_metrics(record: EpochRecord) -> dict[str, float]:
    """One epoch's curves: `train/loss`, `train/collapseness`, ..., `validation/ARS`, ..., and the seconds it took."""
    train = {f"train/{metric_name(name)}": value for name, value in record.diagnostics.items()}
    validation = {f"validation/{metric_name(name)}": value for name, value in record.validation.items()}
    return {**train, **validation, "seconds_per_epoch": record.seconds}


def test_metrics(scores: Mapping[str, float]) -> dict[str, float]:
    """Final scores on the test side: `test/ERS`, `test/ARS`, `test/R_at_1`, ..."""
    return {f"test/{metric_name(name)}": value for name, value in scores.items()}


class Tracker:
    """Writes runs into an MLflow store.

    Attributes:
        uri: the store, whatever folder it is opened from.
    """

    def __init__(self, uri: str = DEFAULT_URI, warn: Callable[[str], None] | None = None) -> None:
        """Open a store, and make the experiment `colotride` in it where it is missing.

        Args:
            uri: `sqlite:///file`, or the address of a tracking server.
            warn: takes the one line that says that the store is out of reach; standard error by default.

        Raises:
            ConfigurationError: not an address that MLflow knows.
        """
        # The first use of a local store reports every table that it makes.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.uri = absolute(uri)
        self._warn = warn or (lambda line: print(line, file=sys.stderr))
        self._reachable = True
        self._experiment: str | None = self._try(self._open)

    def start(
        self,
        name: str,
        *,
        parameters: Mapping[str, str],
        tags: Mapping[str, str],
        parent: str | None = None,
    ) -> str | None:
        """Begin a run, as a child of another one where `parent` names it; returns its id, None when out of reach."""
        experiment = self._experiment
        if experiment is None:
            return None
        nested = {} if parent is None else {PARENT_TAG: parent}
        commit = git_commit()
        known = {} if commit is None else {"mlflow.source.git.commit": commit, "git_commit": commit}

        def begin() -> str:
            run = self._client.create_run(experiment, run_name=name, tags={**tags, **nested, **known})
            pairs = [Param(key, value) for key, value in parameters.items()]
            self._client.log_batch(run.info.run_id, params=pairs)
            return str(run.info.run_id)

        return self._try(begin)

    def metrics(self, run: str | None, values: Mapping[str, float], step: int = 0) -> None:
        """Log values of one step in one request."""
        now = int(time.time() * 1000)
        batch = [Metric(key, value, now, step) for key, value in values.items()]
        self._on(run, lambda one: self._client.log_batch(one, metrics=batch))

    def tags(self, run: str | None, values: Mapping[str, str]) -> None:
        """Set tags of a run."""
        batch = [RunTag(key, value) for key, value in values.items()]
        self._on(run, lambda one: self._client.log_batch(one, tags=batch))

    def artifact(self, run: str | None, path: Path) -> None:
        """Keep a file with a run."""
        self._on(run, lambda one: self._client.log_artifact(one, str(path)))

    def end(self, run: str | None, *, failed: bool = False) -> None:
        """Close a run."""
        self._on(run, lambda one: self._client.set_terminated(one, "FAILED" if failed else "FINISHED"))

    def _open(self) -> str:
        try:
            self._client = MlflowClient(self.uri)
        except MlflowException as error:
            raise ConfigurationError(
                f"tracking URI {self.uri!r} is not one that MLflow knows ({_first(error)}); "
                "give sqlite:///FILE or http://HOST:PORT"
            ) from None
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # A local store keeps its artifacts beside it; a server decides for itself.
        location = Path("mlartifacts").absolute().as_uri() if self.uri.startswith("sqlite:") else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    def _on(self, run: str | None, call: Callable[[str], object]) -> None:
        if run is not None:
            self._try(lambda: call(run))

    def _try(self, call: Callable[[], Any]) -> Any:
        if not self._reachable:
            return None
        try:
            return call()
        except (MlflowException, OSError) as error:
            self._reachable = False
            self._warn(
                f"warning: MLflow store {self.uri} is out of reach ({_first(error)}); going on without it, "
                "all results are kept in the runs' folders"
            )
            return None


class RunRecord:
    """One run of the trainer in MLflow; its folder remembers which, so that a resumed run is continued, not doubled."""

    FILE = "mlflow.json"

    def __init__(self, tracker: Tracker, run: str | None) -> None:
        self._tracker, self._run = tracker, run

    @classmethod
    def open(cls, directory: Path, config: RunConfig, uri: str | None) -> "RunRecord":
        """Continue the record of a run's folder, or begin one.

        Args:
            directory: the run's folder.
            config: of the run.
            uri: the store; None for $MLFLOW_TRACKING_URI or the local one.
        """
        record = cls.existing(directory)
        if record is not None:
            return record
        tracker = Tracker(uri or default_uri())
        tags = {"dataset": config.data.name, "defense": config.defense.name, "kind": "train"}
        run = tracker.start(directory.name, parameters=flat_parameters(config), tags=tags)
        tracker.artifact(run, directory / "config.yaml")
        if run is not None:
            write_atomically(directory / cls.FILE, json.dumps({"uri": tracker.uri, "run": run}).encode())
        return cls(tracker, run)

    @classmethod
    def existing(cls, directory: Path) -> "RunRecord | None":
        """The record of a run's folder, None where it has none."""
        try:
            known = json.loads((directory / cls.FILE).read_text())
        except OSError:
            return None
        return cls(Tracker(known["uri"]), known["run"])

    def epoch(self, record: EpochRecord) -> None:
        """Add an epoch to the curves."""
        self._tracker.metrics(self._run, epoch_metrics(record), record.epoch)

    def end(self, outcome: Outcome) -> None:
        """Close the run with its status; an interrupted one stays open."""
        self._tracker.tags(self._run, {"status": outcome.status, "reason": outcome.reason})
        if outcome.status != "interrupted":
            self._tracker.end(self._run, failed=outcome.status != "finished")

    def evaluation(self, scores: Mapping[str, float], file: Path) -> None:
        """Add the scores on the test side and the file that holds them."""
        self._tracker.metrics(self._run, test_metrics(scores))
        self._tracker.artifact(self._run, file)

    def artifact(self, file: Path) -> None:
        """Keep a file with the run."""
        self._tracker.artifact(self._run, file)


def load_registered(uri: str, tracking_uri: str | None = None) -> nn.Module:
    """The PyTorch model behind an MLflow URI, on the CPU.

    Args:
        uri: `models:/name/version`, `runs:/id/path`, or another place that MLflow reads models from.
        tracking_uri: of the store; None for the default one.

    Raises:
        ModelError: MLflow finds no such model, or cannot load it as a PyTorch one.
    """
    mlflow.set_tracking_uri(tracking_uri or default_uri())
    try:
        with modules_of_working_directory():
            model: nn.Module = mlflow.pytorch.load_model(uri, map_location="cpu")
    except (MlflowException, OSError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {uri} cannot be loaded from MLflow ({reason}); see it with make ui") from None
    return model


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


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
