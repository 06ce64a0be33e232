"""The search in MLflow: one run for the search, a child for every trial and for every run of the verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colotride.config import RunConfig
from colotride.evaluation.results import Evaluation
from colotride.tracking.export import TEST_STEP, Tracker, watch
from colotride.tracking.names import dataset_of, epoch_metrics, final_metrics, flat_parameters, run_tags, test_metrics
from colotride.training.records import EpochRecord
from colotride.tune.plan import Plan
from colotride.tune.trials import TrialRow

SEARCH = "search"
"""Key of the search's own run."""


class SearchRecord:
    """Writes a search into MLflow as it goes; a `TrialCallback`. Told twice of something, it writes it once."""

    def __init__(self, tracker: Tracker, name: str, plan: Plan) -> None:
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

    def started(self, row: TrialRow) -> None:
        """Begin the child run of a trial, with all its settings."""
        config = self._plan.space.configure(self._plan.base, row.values)
        self._tracker.start(
            self._trial(row),
            f"trial {row.number}",
            parameters=flat_parameters(config),
            tags=self._tags(config, "trial"),
            parent=SEARCH,
            dataset=dataset_of(config),
        )

    def reported(self, row: TrialRow, result: dict[str, Any]) -> None:
        """Add an epoch to the curves of a trial."""
        seen = result["record"]
        record = EpochRecord(
            result["epoch"], seen["step"], result["seconds"], seen["diagnostics"], seen["validation"], seen["passes"]
        )
        self._tracker.metrics(self._trial(row), epoch_metrics(record), record.epoch)

    def ended(self, row: TrialRow) -> None:
        """Close the child run of a trial with its final scores, or with the reason why there are none."""
        key = self._trial(row)
        known = {"epochs": float(row.epoch), "seconds": row.seconds, "million_passes": row.cost}
        # What a stopped trial had reached was measured with less: under the same name it would look better than it is.
        scores = final_metrics(row.scores) if row.status == "finished" else {}
        self._tracker.metrics(key, scores | known, row.epoch)
        self._tracker.tags(key, {"status": row.status, "reason": row.reason})
        self._tracker.end(key, failed=row.status not in ("finished", "stopped"))

    def verdict(self, name: str, config: RunConfig, history: list[EpochRecord], evaluation: Evaluation) -> None:
        """Add a retrained model as a child run: its curves, and its scores on the test classes.

        Args:
            name: of the run, with its seed.
            config: of the run.
            history: of its training.
            evaluation: on the test side.
        """
        key, scores = f"verdict/{name}", evaluation.scores()
        self._tracker.start(
            key,
            f"verdict: {name}",
            parameters=flat_parameters(config),
            tags={**self._tags(config, "verdict"), "status": "finished"},
            parent=SEARCH,
            dataset=dataset_of(config),
        )
        for record in history:
            self._tracker.metrics(key, epoch_metrics(record), record.epoch)
        self._tracker.metrics(key, test_metrics(scores))
        self._tracker.metrics(key, final_metrics(scores), TEST_STEP)
        self._tracker.end(key)

    def register(self, name: str, folder: Path, scores: Mapping[str, float]) -> str:
        """Register the model of a run of the verdict; returns the name under which it is found.

        Args:
            name: of the run, as `verdict` was told.
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

    def _trial(self, row: TrialRow) -> str:
        return f"trial/{row.number}"

    def _tags(self, config: RunConfig, kind: str) -> dict[str, str]:
        return run_tags(config, kind) | {"search": self._name}
