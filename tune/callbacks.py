"""What hears of a search's trials: the terminal (see `progress`), and MLflow, with one run for the search and children."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from colotride.config import RunConfig
from colotride.evaluation.results import Evaluation
from colotride.tracking.export import TEST_STEP, Tracker, watch
from colotride.tracking.names import dataset_of, epoch_metrics, final_metrics, flat_parameters, run_tags, test_metrics
from colotride.training.records import EpochRecord
from colotride.tune.plan import SearchPlan
from colotride.tune.records import TrialRecord

SEARCH = "search"
"""Key of the search's own run."""


@runtime_checkable
class TrialCallback(Protocol):
    """Told of everything that happens to a trial, in the driver's process."""

    def started(self, record: TrialRecord) -> None:
        """Begin a trial, or go on with one."""

    def reported(self, record: TrialRecord) -> None:
        """Take a trial with one epoch more; after an interruption also with epochs that were reported before."""

    def ended(self, record: TrialRecord) -> None:
        """Close a trial; its status says how it ended."""


class MLflowCallback:
    """Writes a search into MLflow as it goes; a `TrialCallback`. What it is told twice, it writes once."""

    def __init__(self, tracker: Tracker, name: str, plan: SearchPlan) -> None:
        """Begin the search's run, or go on with it.

        Args:
            tracker: of the search's folder.
            name: of the search.
            plan: of the search.
        """
        self._tracker, self._plan, self._name = tracker, plan, name
        parameters = {
            "trials": str(plan.trials),
            "objectives": ",".join(plan.objectives),
            "sampler": plan.sampler,
            "stopping": plan.stopping,
            "sampler_seed": str(plan.seed),
        }
        tracker.start(
            SEARCH,
            name,
            parameters=flat_parameters(plan.base) | parameters,
            tags=self._tags(plan.base, "search"),
            dataset=dataset_of(plan.base),
        )
        self._system = watch(tracker, SEARCH)

    def started(self, record: TrialRecord) -> None:
        """Begin the child run of a trial, with all its settings."""
        self._start(_key(record), f"trial {record.number}", record.config, self._tags(record.config, "trial"))

    def reported(self, record: TrialRecord) -> None:
        """Add the epochs of a trial to its curves."""
        for epoch in record.history:
            self._tracker.metrics(_key(record), epoch_metrics(epoch), epoch.epoch)

    def ended(self, record: TrialRecord) -> None:
        """Close the child run of a trial with its final scores, or with the reason why there are none."""
        known = {"epochs": float(record.epoch), "seconds": record.seconds, "million_passes": record.cost}
        # What a stopped trial had reached was measured with less: under the same name it would look better than it is.
        scores = final_metrics(record.scores) if record.status == "finished" else {}
        self._tracker.metrics(_key(record), scores | known, record.epoch)
        self._tracker.tags(_key(record), {"status": record.status, "reason": record.reason})
        self._tracker.end(_key(record), failed=record.status not in ("finished", "stopped"))

    def evaluated(self, name: str, config: RunConfig, history: Sequence[EpochRecord], evaluation: Evaluation) -> None:
        """Add a run of the final evaluation as a child run: its curves, and its scores on the test classes.

        Args:
            name: of the run, with its seed.
            config: of the run.
            history: of its training.
            evaluation: on the test side.
        """
        key, scores = f"verdict/{name}", evaluation.scores()
        self._start(key, f"verdict: {name}", config, {**self._tags(config, "verdict"), "status": "finished"})
        for epoch in history:
            self._tracker.metrics(key, epoch_metrics(epoch), epoch.epoch)
        self._tracker.metrics(key, test_metrics(scores))
        self._tracker.metrics(key, final_metrics(scores), TEST_STEP)
        self._tracker.end(key)

    def register(self, name: str, folder: Path, scores: Mapping[str, float]) -> str:
        """Register the model of a run of the final evaluation; returns the name under which it is found.

        Args:
            name: of the run, as `evaluated` was told.
            folder: of the run.
            scores: on the test side.
        """
        model = f"colotride-{self._plan.base.data.name}"
        self._tracker.register(f"verdict/{name}", folder, model, scores)
        return model

    def close(
        self, best: Mapping[str, float], artifacts: Sequence[Path], folder: Path, *, failed: bool = False
    ) -> None:
        """Close the search's run with the best validation scores and its files.

        Args:
            best: scores of the best trial.
            artifacts: files below the search's folder.
            folder: of the search.
            failed: whether it ended by an error.
        """
        self._system.stop()
        self._tracker.metrics(SEARCH, final_metrics(best))
        for path in artifacts:
            below = path.relative_to(folder).parent.as_posix()
            self._tracker.artifact(SEARCH, path, None if below == "." else below)
        self._tracker.tags(SEARCH, {"status": "failed" if failed else "finished"})
        self._tracker.end(SEARCH, failed=failed)
        self._tracker.close()

    def pause(self) -> None:
        """Send what there is; the search goes on another time."""
        self._system.stop()
        self._tracker.tags(SEARCH, {"status": "interrupted"})
        self._tracker.close()

    def _start(self, key: str, name: str, config: RunConfig, tags: Mapping[str, str]) -> None:
        self._tracker.start(
            key, name, parameters=flat_parameters(config), tags=tags, parent=SEARCH, dataset=dataset_of(config)
        )

    def _tags(self, config: RunConfig, kind: str) -> dict[str, str]:
        return run_tags(config, kind) | {"search": self._name}


def _key(record: TrialRecord) -> str:
    return f"trial/{record.number}"
