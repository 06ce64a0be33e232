"""One run of the trainer in MLflow: its curves, how it ended, and its scores on the test side."""

import time
from collections.abc import Mapping
from pathlib import Path

from colotride.config import RunConfig, config_text
from colotride.tracking.export import DIRECTORY, JOURNAL, Tracker, default_uri
from colotride.tracking.names import (
    CONFIG_FILE,
    dataset_of,
    epoch_metrics,
    run_parameters,
    run_tags,
    test_metrics,
    val_metrics,
)
from colotride.tracking.system_metrics import SystemMetrics
from colotride.training.records import EpochRecord, Outcome

KEY = "run"
"""Key of the one run in its directory."""


class RunRecord:
    """The record lies in the run's directory, so that a resumed run continues its record and has only one."""

    def __init__(self, tracker: Tracker, system: SystemMetrics | None = None) -> None:
        """Wrap a tracker of the run's directory; see `open` and `existing`."""
        self._tracker, self._system = tracker, system

    @classmethod
    def open(cls, directory: Path, config: RunConfig, uri: str | None) -> "RunRecord":
        """Continue the record of a run's directory, or start one; the machine's load is recorded from now on.

        Args:
            directory: of the run.
            config: of the run.
            uri: of the store; None for $MLFLOW_TRACKING_URI or the local one.
        """
        tracker = Tracker(uri or default_uri(), directory)
        is_new = tracker.start(
            KEY,
            directory.name,
            parameters=run_parameters(config),
            tags=run_tags(config, "train") | {"status": "running"},
            dataset=dataset_of(config),
        )
        if is_new:
            tracker.text(KEY, CONFIG_FILE, config_text(config))
        return cls(tracker, watch(tracker, KEY))

    @classmethod
    def existing(cls, directory: Path) -> "RunRecord | None":
        """The record of a run's directory; None where it has none."""
        return cls(Tracker(default_uri(), directory)) if (directory / DIRECTORY / JOURNAL).is_file() else None

    def epoch(self, record: EpochRecord) -> None:
        """Add an epoch to the curves."""
        self._tracker.metrics(KEY, epoch_metrics(record), record.epoch)

    def end(self, outcome: Outcome) -> None:
        """Close the run with its status; an interrupted one stays open."""
        if self._system is not None:
            self._system.stop()
        if outcome.status == "finished" and outcome.history:
            last = outcome.history[-1]
            self._tracker.metrics(KEY, val_metrics(last.validation), last.epoch)
        self._tracker.tags(KEY, {"status": outcome.status, "reason": outcome.reason})
        if outcome.status != "interrupted":
            self._tracker.end(KEY, failed=outcome.status != "finished")
        self._tracker.close()

    def evaluation(self, scores: Mapping[str, float], *files: Path) -> None:
        """Add the scores on the test side and the files that hold them."""
        self._tracker.metrics(KEY, test_metrics(scores))
        for file in files:
            self._tracker.artifact(KEY, file)
        self._tracker.close()


def watch(tracker: Tracker, key: str) -> SystemMetrics:
    """Record this machine's load with a run, until it is stopped."""
    started = time.time()
    return SystemMetrics(lambda sample: tracker.metrics(key, sample, int(time.time() - started)))
