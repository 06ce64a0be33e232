"""One MLflow store. Everything is written such that writing it a second time changes nothing."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from colotride.errors import ColoTrideError
from colotride.tracking.journal import Entry
from colotride.tracking.model_registry import register
from colotride.tracking.names import EXPERIMENT, experiment_tags, view_tag

PARENT_TAG = "mlflow.parentRunId"
KEY_TAG = "colotride.key"

SQLITE = "sqlite:///"


class Store:
    """Writes the entries of one journal into one store."""

    def __init__(self, uri: str, journal: str) -> None:
        """Connect later, with the first call of `identity`.

        Args:
            uri: of the store.
            journal: unique name of the journal; runs are found again by it and by their own key.
        """
        self.uri, self._journal = uri, journal
        self._file = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        self._client: MlflowClient | None = None
        self._opened: tuple[int, int] | None = None
        self._experiment, self._identity = "", ""
        self._runs: dict[str, str] = {}

    def identity(self) -> str:
        """What distinguishes this store from one that was created later under the same address.

        Raises:
            Exception: the store is out of reach; the type depends on what failed.
        """
        if self._client is None or self._opened != self._inode():
            self.forget()
            self._connect()
        return self._identity

    def forget(self) -> None:
        """Connect anew with the next call of `identity`."""
        self._client, self._runs = None, {}

    @property
    def experiment(self) -> str | None:
        """MLflow's id of the experiment; None before the first connection."""
        return self._experiment or None

    def write(self, entries: Sequence[Entry]) -> None:
        """Write one entry, or several of one run that hold only metrics and tags.

        Raises:
            ColoTrideError: the entry can never be written.
            Exception: whatever MLflow raises.
        """
        assert self._client is not None
        first = entries[0]
        if first["do"] in ("metrics", "tags"):
            self._batch(self._client, entries)
        else:
            getattr(self, f"_{first['do']}")(self._client, first)

    def _connect(self) -> None:
        if self._file is not None:
            create_sqlite_store(self._file)
        self._opened = self._inode()
        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            # A local store keeps its artifacts beside it; a server decides for itself.
            place = None if self._file is None else (self._file.absolute().parent / "mlartifacts").as_uri()
            client.create_experiment(EXPERIMENT, place, experiment_tags(int(time.time() * 1000)))
            found = client.get_experiment_by_name(EXPERIMENT)
        self._experiment, self._identity = found.experiment_id, f"{found.experiment_id}:{found.creation_time}"
        self._client = client

    def _inode(self) -> tuple[int, int] | None:
        if self._file is None or not self._file.exists():
            return None
        found = self._file.stat()
        return found.st_dev, found.st_ino

    def _find(self, client: MlflowClient, key: str) -> Run | None:
        """The run of a key: a former process may have created it."""
        found = client.search_runs([self._experiment], f"tags.`{KEY_TAG}` = '{self._journal}:{key}'")
        return found[0] if found else None

    def _run(self, client: MlflowClient, key: str) -> str:
        if key not in self._runs:
            found = self._find(client, key)
            if found is None:
                raise ColoTrideError(f"MLflow has no run {key}")
            self._runs[key] = found.info.run_id
        return self._runs[key]

    def _start(self, client: MlflowClient, entry: Entry) -> None:
        tags = {**entry["tags"], KEY_TAG: f"{self._journal}:{entry['run']}"}
        if entry["parent"] is not None:
            tags[PARENT_TAG] = self._run(client, entry["parent"])
        run = self._find(client, entry["run"])
        if run is None:
            run = client.create_run(self._experiment, entry["time"], tags, entry["name"])
        parameters = [Param(name, value) for name, value in entry["parameters"].items()]
        client.log_batch(run.info.run_id, params=parameters)
        if entry["dataset"] is not None and not run.inputs.dataset_inputs:
            client.log_inputs(run.info.run_id, [_dataset(entry["dataset"])])
        self._runs[entry["run"]] = run.info.run_id

    def _batch(self, client: MlflowClient, entries: Sequence[Entry]) -> None:
        metrics = [
            Metric(name, value, entry["time"], entry["step"])
            for entry in entries
            for name, value in entry.get("metrics", {}).items()
        ]
        tags = {name: value for entry in entries for name, value in entry.get("tags", {}).items()}
        run_tags = [RunTag(name, value) for name, value in tags.items()]
        client.log_batch(self._run(client, entries[0]["run"]), metrics=metrics, tags=run_tags)

    def _artifact(self, client: MlflowClient, entry: Entry) -> None:
        path = Path(entry["path"])
        if not path.exists():
            raise ColoTrideError(f"{path} is not there any more")
        client.log_artifact(self._run(client, entry["run"]), str(path), entry["below"])

    def _text(self, client: MlflowClient, entry: Entry) -> None:
        client.log_text(self._run(client, entry["run"]), entry["text"], entry["name"])

    def _view(self, client: MlflowClient, entry: Entry) -> None:
        own = f"tags.`{KEY_TAG}` LIKE '{self._journal}:%'"
        for tag, state in view_tag(entry["view"], entry["name"], own, entry["time"]).items():
            client.set_experiment_tag(self._experiment, tag, state)

    def _end(self, client: MlflowClient, entry: Entry) -> None:
        client.set_terminated(self._run(client, entry["run"]), entry["status"], entry["time"])

    def _register(self, client: MlflowClient, entry: Entry) -> None:
        run = self._run(client, entry["run"])
        register(client, self.uri, run, Path(entry["directory"]), entry["name"], entry["scores"], entry["description"])


def create_sqlite_store(path: Path) -> None:
    """Create a local store under another name and then give it its own; a store that exists is left alone.

    MLflow creates its tables in many steps, and a store that was cut off between two of them can never be opened again.
    """
    if path.exists():
        if path.stat().st_size:
            return
        # SQLite leaves an empty file where a store was deleted while it was in use.
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder) / path.name
        MlflowClient(f"{SQLITE}{fresh}").search_experiments(max_results=1)
        # Another process may have been faster; its store stays.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)


def _dataset(known: dict[str, Any]) -> DatasetInput:
    dataset = Dataset(
        name=known["name"],
        digest=known["digest"],
        source_type="local",
        source=json.dumps({"uri": known["source"]}),
        profile=json.dumps(known["profile"]),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
