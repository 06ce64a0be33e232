"""MLflow: every run's configuration, curves and scores in one store, so that runs are compared on its pages.

Nothing here waits for the store. What is to be recorded goes into a journal in the run's own directory, and a thread
writes it to MLflow; a store that is down, slow or far away delays the record, never the work. A store that was deleted
and created again gets everything from the beginning.
"""

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colotride.provenance import git_commit
from colotride.tracking.addresses import check_tracking_uri
from colotride.tracking.delivery import Delivery
from colotride.tracking.journal import Entry, Journal
from colotride.tracking.names import ALL_RUNS, page_of
from colotride.tracking.store import SQLITE, Store

DEFAULT_URI = "sqlite:///mlflow.db"

DIRECTORY, JOURNAL, SENT = "mlflow", "journal.jsonl", "sent.json"
"""Within the directory of a run or a search: a directory with the journal, and how much of it which store holds."""

LOCAL_PAGES = "http://127.0.0.1:5000"
"""Where `make ui` shows a local store."""

CLOSING_SECONDS = 10.0
"""How long the end of a run waits for a store that is out of reach."""


class Tracker:
    """Records the runs of one directory, each under its own key.

    Attributes:
        uri: of the store, independent of the working directory.
    """

    def __init__(self, uri: str, directory: Path, warn: Callable[[str], None] | None = None) -> None:
        """Open the record of a directory; what a former process could not send is sent now.

        Args:
            uri: `sqlite:///file`, or the address of a tracking server; a record that exists keeps its own.
            directory: of the run or the search.
            warn: called with each line for the user; standard error by default.

        Raises:
            ConfigurationError: not an address that MLflow knows.
            StorageError: the journal cannot be read.
        """
        # The first use of a local store reports every table that it creates.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # The delivery itself retries a server that does not answer.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        # A pooled connection would keep writing into a local store that was deleted.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        check_tracking_uri(uri)
        self._warn = warn or (lambda line: print(line, file=sys.stderr))
        self._directory = directory / DIRECTORY
        self._journal = Journal(self._directory / JOURNAL)
        self._started: set[str] = set()
        self._logged: set[tuple[str, str, int]] = set()
        self._view = ALL_RUNS
        self._ended: set[str] = set()
        self.uri, self._identity = absolute(uri), uuid.uuid4().hex
        if self._journal.damaged:
            numbers = ", ".join(map(str, self._journal.damaged[:5])) + (
                ", ..." if len(self._journal.damaged) > 5 else ""
            )
            self._warn(f"warning: {self._journal.path}, line {numbers}, is no entry for MLflow; it is left out")
        for entry, _ in self._journal.read():
            self._note(entry)
        store = Store(self.uri, self._identity)
        self._delivery = Delivery(self._journal, self._directory / SENT, store, self._warn)

    def start(
        self,
        key: str,
        name: str,
        *,
        parameters: Mapping[str, str],
        tags: Mapping[str, str],
        parent: str | None = None,
        dataset: Mapping[str, Any] | None = None,
    ) -> bool:
        """Start a run, as a child of another one where `parent` names its key.

        Returns:
            Whether it is new; a run that was started already is continued.
        """
        if key in self._started:
            return False
        commit = git_commit()
        known = {} if commit is None else {"mlflow.source.git.commit": commit, "git_commit": commit}
        self._put(
            key, "start", uri=self.uri, journal=self._identity, name=name, parent=parent, parameters=dict(parameters),
            tags={**tags, **known}, dataset=None if dataset is None else dict(dataset),
        )  # fmt: skip
        return True

    def metrics(self, key: str, values: Mapping[str, float], step: int = 0) -> None:
        """Record the values of one step; a name that has a value at this step keeps it."""
        new = {name: value for name, value in values.items() if (key, name, step) not in self._logged}
        if new:
            self._put(key, "metrics", metrics=new, step=step)

    def tags(self, key: str, values: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._put(key, "tags", tags=dict(values))

    def artifact(self, key: str, path: Path, below: str | None = None) -> None:
        """Keep a file with a run, in a directory of its artifacts where `below` names one."""
        self._put(key, "artifact", path=str(path.absolute()), below=below)

    def text(self, key: str, name: str, content: str) -> None:
        """Keep a text with a run, as a file of this name."""
        self._put(key, "text", name=name, text=content)

    def register(
        self, key: str, directory: Path, name: str, scores: Mapping[str, float], description: str = ""
    ) -> None:
        """Register the model of a run's directory; see `model_registry.register`."""
        self._put(
            key, "register", directory=str(directory.absolute()), name=name, scores=dict(scores),
            description=description,
        )  # fmt: skip

    def view(self, key: str, name: str) -> None:
        """Save a view of MLflow's pages with the runs of this directory alone, which `page` then opens.

        Args:
            key: of a run that belongs to it.
            name: for people.
        """
        if self._view == ALL_RUNS:
            self._put(key, "view", view=self._identity, name=name)

    def end(self, key: str, *, failed: bool = False) -> None:
        """Close a run."""
        self._put(key, "end", status="FAILED" if failed else "FINISHED")

    def has_ended(self, key: str) -> bool:
        """Whether a run was closed, by this process or a former one."""
        return key in self._ended

    @property
    def page(self) -> str:
        """Address of MLflow's page with the scores: the server's, or that of `make ui`.

        It shows the runs of the view that was saved, or all of them.
        """
        address = self.uri.rstrip("/") if self.uri.startswith("http") else LOCAL_PAGES
        return page_of(address, self._delivery.store.experiment or "1", self._view)

    def close(self, seconds: float = CLOSING_SECONDS) -> int:
        """Wait while the store takes entries; returns how many it does not hold in the end.

        Args:
            seconds: to wait for a store that is out of reach.
        """
        waiting = self._delivery.close(seconds)
        if waiting:
            self._warn(
                f"warning: {waiting} entries for MLflow are kept in {self._directory}; "
                f"send them with: colotride sync {self._directory.parent}"
            )
        return waiting + self._delivery.refused

    def _put(self, key: str, do: str, **values: Any) -> None:
        entry = {"run": key, "do": do, "time": int(time.time() * 1000), **values}
        self._journal.append(entry)
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry["do"] == "start":
            self._started.add(entry["run"])
            self.uri, self._identity = entry["uri"], entry["journal"]
        elif entry["do"] == "metrics":
            self._logged |= {(entry["run"], name, entry["step"]) for name in entry["metrics"]}
        elif entry["do"] == "end":
            self._ended.add(entry["run"])
        elif entry["do"] == "view":
            self._view = entry["view"]


def default_uri() -> str:
    """The store that $MLFLOW_TRACKING_URI names, or the local one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def absolute(uri: str) -> str:
    """The same store, independent of the working directory."""
    return SQLITE + str(Path(uri.removeprefix(SQLITE)).absolute()) if uri.startswith(SQLITE) else uri
