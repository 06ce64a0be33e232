"""Brings the entries of an outbox into an MLflow store, each once."""

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from colotride.errors import ColoTrideError
from colotride.tracking.model_registry import register
from colotride.tracking.outbox import Entry, Outbox

EXPERIMENT = "colotride"
PARENT_TAG = "mlflow.parentRunId"
KEY_TAG = "colotride.key"

BATCHED = ("metrics", "tags")
"""What may be sent together, as long as it is of one run."""

BATCH = 1000
"""Metrics that MLflow takes in one request."""

PAUSES = (0.5, 1, 2, 5, 10, 30, 60)
"""Seconds between attempts to reach a store that is away."""

FOR_GOOD = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
"""What MLflow says of a request that would be refused again."""

SLOWEST = 60.0
"""Seconds that one entry may take to be sent."""

Warn = Callable[[str], None]


class Delivery:
    """Sends one outbox to one store; knows how to do each kind of entry so that doing it twice changes nothing."""

    def __init__(self, outbox: Outbox, uri: str, warn: Warn) -> None:
        self._outbox, self._uri, self._warn = outbox, uri, warn
        self._client: MlflowClient | None = None
        self._experiment = ""

    def step(self) -> bool:
        """Send the next entries; False where there were none.

        Raises:
            Exception: the store is out of reach, in the words of whatever failed; nothing was taken off the outbox.
        """
        waiting = self._outbox.waiting(BATCH)
        if not waiting:
            return False
        client = self._connected()
        entry, position = waiting[0]
        if entry["do"] in BATCHED:
            run = entry["run"]
            count = next(
                (place for place, (one, _) in enumerate(waiting) if one["do"] not in BATCHED or one["run"] != run),
                len(waiting),
            )
            while count > 1 and sum(len(one.get("metrics", {})) for one, _ in waiting[:count]) > BATCH:
                count -= 1
            position = waiting[count - 1][1]
            self._try(lambda: self._batch(client, [one for one, _ in waiting[:count]]))
        else:
            self._try(lambda: getattr(self, f"_{entry['do']}")(client, entry))
        self._outbox.done(position)
        return True

    def _try(self, send: Callable[[], None]) -> None:
        try:
            send()
        except MlflowException as error:
            if error.error_code not in FOR_GOOD:
                raise
            self._warn(f"warning: MLflow does not take a value ({first_line(error)}); it is left out there")
        except ColoTrideError as error:
            self._warn(f"warning: {first_line(error)}; it is left out of MLflow")

    def _connected(self) -> MlflowClient:
        if self._client is None:
            make_whole(self._uri)
            client = MlflowClient(self._uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                # A local store keeps its artifacts beside it; a server decides for itself.
                local = self._uri.startswith("sqlite:///")
                beside = Path(self._uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts"
                client.create_experiment(EXPERIMENT, artifact_location=beside.as_uri() if local else None)
                found = client.get_experiment_by_name(EXPERIMENT)
            self._experiment, self._client = found.experiment_id, client
        return self._client

    def _run(self, entry: Entry) -> str:
        try:
            return self._outbox.sent.runs[entry["run"]]
        except KeyError:
            raise ColoTrideError(f"run {entry['run']} was never begun in MLflow") from None

    def _start(self, client: MlflowClient, entry: Entry) -> None:
        key = f"{self._outbox.sent.identity}:{entry['run']}"
        # A process may have died after MLflow had made the run and before that was noted.
        found = client.search_runs([self._experiment], filter_string=f"tags.`{KEY_TAG}` = '{key}'")
        tags = {**entry["tags"], KEY_TAG: key}
        if entry["parent"] is not None:
            tags[PARENT_TAG] = self._outbox.sent.runs.get(entry["parent"], "")
        run = found[0] if found else client.create_run(self._experiment, entry["time"], tags, entry["name"])
        parameters = [Param(name, value) for name, value in entry["parameters"].items()]
        client.log_batch(run.info.run_id, params=parameters)
        if entry["dataset"] is not None and not run.inputs.dataset_inputs:
            client.log_inputs(run.info.run_id, [_dataset(entry["dataset"])])
        self._outbox.called(entry["run"], run.info.run_id)

    def _batch(self, client: MlflowClient, entries: Sequence[Entry]) -> None:
        metrics = [
            Metric(name, value, entry["time"], entry["step"])
            for entry in entries
            for name, value in entry.get("metrics", {}).items()
        ]
        tags = [RunTag(name, value) for entry in entries for name, value in entry.get("tags", {}).items()]
        client.log_batch(self._run(entries[0]), metrics=metrics, tags=tags)

    def _artifact(self, client: MlflowClient, entry: Entry) -> None:
        path = Path(entry["path"])
        if not path.exists():
            raise ColoTrideError(f"{path} is not there any more")
        client.log_artifact(self._run(entry), str(path), entry["below"])

    def _end(self, client: MlflowClient, entry: Entry) -> None:
        client.set_terminated(self._run(entry), entry["status"], entry["time"])

    def _register(self, client: MlflowClient, entry: Entry) -> None:
        register(client, self._uri, self._run(entry), Path(entry["folder"]), entry["name"], entry["scores"])


class Carrier:
    """Delivers in the background, for as long as its process lives."""

    def __init__(self, outbox: Outbox, uri: str, warn: Warn) -> None:
        self._outbox, self._uri, self._warn = outbox, uri, warn
        self._delivery = Delivery(outbox, uri, warn)
        self._closing, self._failures = threading.Event(), 0
        self._thread = threading.Thread(target=self._work, name="mlflow-outbox", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> int:
        """Go on while there is something to send and it gets less; returns how many entries are left.

        Args:
            seconds: to wait for a store that is out of reach; one that answers gets longer for a single entry, because
                a model is large.
        """
        left, since = self._outbox.left, time.monotonic()
        while left and time.monotonic() - since < (seconds if self._failures else max(seconds, SLOWEST)):
            time.sleep(0.02)
            now = self._outbox.left
            if now < left:
                left, since = now, time.monotonic()
        self._closing.set()
        return left

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                if not self._delivery.step():
                    self._outbox.wait(0.2)
                self._failures = 0
            except Exception as error:
                # Whatever MLflow, its database or the network raise: the record waits, and the work goes on.
                if self._failures == 0:
                    self._warn(
                        f"warning: MLflow store {self._uri} is out of reach ({first_line(error)}); going on, "
                        f"values are kept in {self._outbox.folder} and sent when it is back"
                    )
                self._closing.wait(PAUSES[min(self._failures, len(PAUSES) - 1)])
                self._failures += 1


def make_whole(uri: str) -> None:
    """Make a local store under another name and then give it its own; other addresses are left alone.

    MLflow makes its tables in many steps, and a store that was cut off between two of them can never be opened again.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder) / path.name
        MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
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


def first_line(error: BaseException) -> str:
    """What an error says, in one short line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
