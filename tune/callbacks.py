"""What follows a search's trials: the terminal (see `progress`), and MLflow, with a run and its child runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from colotride.config import RunConfig, config_text
from colotride.evaluation.results import Evaluation
from colotride.tracking.export import Tracker
from colotride.tracking.names import (
    CONFIG_FILE,
    DESCRIPTION_TAG,
    dataset_of,
    epoch_metrics,
    parameter_text,
    run_parameters,
    run_tags,
    test_metrics,
    val_metrics,
)
from colotride.tracking.runs import watch
from colotride.training.records import EpochRecord
from colotride.tune.plan import SearchPlan
from colotride.tune.records import TrialRecord

SEARCH = "search"
"""Key of the search's own run."""


@runtime_checkable
class TrialCallback(Protocol):
    """Called about everything that happens to a trial, in the driver's process."""

    def started(self, record: TrialRecord) -> None:
        """A trial begins, or continues after an interruption."""

    def reported(self, record: TrialRecord) -> None:
        """A trial has one epoch more; after an interruption, epochs that were reported before come again."""

    def ended(self, record: TrialRecord) -> None:
        """A trial has ended; its status says how."""


class MLflowCallback:
    """Records a search while it runs; a `TrialCallback`. What is reported twice is recorded once."""

    def __init__(self, tracker: Tracker, name: str, plan: SearchPlan) -> None:
        """Start the search's run, or continue it.

        Args:
            tracker: of the search's directory.
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
        tags = self._tags(plan.base, "search") | {DESCRIPTION_TAG: self._description()}
        self._start(SEARCH, name, plan.base, run_parameters(plan.base) | parameters, tags, parent=None)
        tracker.view(SEARCH, f"Search {name}")
        self._system = watch(tracker, SEARCH)

    def catch_up(self, records: Sequence[TrialRecord]) -> None:
        """Record the trials that ended while a former driver was killed, which were never told to have ended."""
        for record in records:
            if record.status != "running" and not self._tracker.has_ended(_key(record)):
                self.started(record)
                self.reported(record)
                self.ended(record)

    def started(self, record: TrialRecord) -> None:
        """Start the child run of a trial; its parameters are the values that were searched."""
        parameters = {name: parameter_text(value) for name, value in record.values.items()}
        name, tags = f"trial {record.number}", self._tags(record.config, "trial")
        self._start(_key(record), name, record.config, parameters, tags)

    def reported(self, record: TrialRecord) -> None:
        """Add the epochs of a trial to its curves."""
        for epoch in record.history:
            self._tracker.metrics(_key(record), epoch_metrics(epoch), epoch.epoch)

    def ended(self, record: TrialRecord) -> None:
        """Close the child run of a trial with its final scores, or with the reason why there are none."""
        known = {"epochs": float(record.epoch), "seconds": record.seconds, "million_passes": record.cost}
        # What a stopped trial had reached was measured with less: under the same name it would look better than it is.
        scores = val_metrics(record.scores) if record.status == "finished" else {}
        self._tracker.metrics(_key(record), scores | known, record.epoch)
        self._tracker.tags(_key(record), {"status": record.status, "reason": record.reason})
        self._tracker.end(_key(record), failed=record.status not in ("finished", "stopped"))

    def repeated(self, name: str, record: TrialRecord) -> None:
        """Add a repetition of a trial with another seed as a child run.

        Args:
            name: of the run, with its seed.
            record: the trial's, with the repetition's configuration, epochs and end.
        """
        key, tags = f"race/{name}", self._tags(record.config, "race") | {"status": record.status}
        self._start(key, f"race: {name}", record.config, run_parameters(record.config), tags)
        for epoch in record.history:
            self._tracker.metrics(key, epoch_metrics(epoch), epoch.epoch)
        if record.status == "finished":
            self._tracker.metrics(key, val_metrics(record.scores), record.epoch)
        self._tracker.end(key)

    def evaluated(
        self, key: str, name: str, config: RunConfig, history: Sequence[EpochRecord], evaluation: Evaluation
    ) -> None:
        """Add a run of the final evaluation as a child run: its curves, and its scores on the test classes.

        Args:
            key: of the run: which configuration it is, and its seed. What is best may change when a search goes on.
            name: of the run for people, with its seed.
            config: of the run.
            history: of its training.
            evaluation: on the test side.
        """
        key, tags = f"verdict/{key}", self._tags(config, "verdict") | {"status": "finished"}
        self._start(key, f"verdict: {name}", config, run_parameters(config), tags)
        self._tracker.metrics(key, test_metrics(evaluation.scores()))
        for epoch in history:
            self._tracker.metrics(key, epoch_metrics(epoch), epoch.epoch)
        self._tracker.end(key)

    def register(self, key: str, name: str, folder: Path, scores: Mapping[str, float]) -> str:
        """Register the model of a run of the final evaluation; returns the name under which it is found.

        Args:
            key: of the run, as in `evaluated`.
            name: of the run, as in `evaluated`.
            folder: of the run.
            scores: on the test side.
        """
        model = f"colotride-{self._plan.base.data.name}"
        description = f"Winner of search {self._name} ({name}): {_listed(scores)} on the test classes."
        self._tracker.register(f"verdict/{key}", folder, model, scores, description)
        return model

    def close(
        self, best: Mapping[str, float], artifacts: Sequence[Path], folder: Path, *, failed: bool = False
    ) -> None:
        """Close the search's run with the best validation scores and its files.

        Args:
            best: scores of the best trial.
            artifacts: files below the search's folder.
            folder: of the search.
            failed: whether it ended with an error.
        """
        self._system.stop()
        self._tracker.metrics(SEARCH, val_metrics(best))
        for path in artifacts:
            below = path.relative_to(folder).parent.as_posix()
            self._tracker.artifact(SEARCH, path, None if below == "." else below)
        found = f"\n\nBest trial: {_listed(best)} on the held-out classes." if best else ""
        pages = [f"`{path.name}`" for path in artifacts if path.suffix in (".html", ".yaml")]
        found += f" Among the artifacts: {', '.join(pages)}." if pages else ""
        status = "failed" if failed else "finished"
        self._tracker.tags(SEARCH, {"status": status, DESCRIPTION_TAG: self._description() + found})
        self._tracker.end(SEARCH, failed=failed)
        self._tracker.close()

    def pause(self) -> None:
        """Send what has been recorded; the search will be continued later."""
        self._system.stop()
        self._tracker.tags(SEARCH, {"status": "interrupted"})
        self._tracker.close()

    def _start(
        self,
        key: str,
        name: str,
        config: RunConfig,
        parameters: Mapping[str, str],
        tags: Mapping[str, str],
        parent: str | None = SEARCH,
    ) -> None:
        dataset = dataset_of(config)
        if self._tracker.start(key, name, parameters=parameters, tags=tags, parent=parent, dataset=dataset):
            self._tracker.text(key, CONFIG_FILE, config_text(config))

    def _description(self) -> str:
        plan = self._plan
        return (
            f"Search over {plan.trials} configurations of {plan.base.defense.name} on {plan.base.data.name} for the "
            f"highest {' and '.join(plan.objectives)} on classes held out from training (sampler: {plan.sampler}, "
            f"early stopping: {plan.stopping}). Every trial is a child run whose parameters are the searched values; "
            "to compare trials, select them and press Compare."
        )

    def _tags(self, config: RunConfig, kind: str) -> dict[str, str]:
        return run_tags(config, kind) | {"search": self._name, "status": "running"}


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {scores[name]:.1f}" for name in ("ARS", "ERS", "R@1") if name in scores)


def _key(record: TrialRecord) -> str:
    return f"trial/{record.number}"
