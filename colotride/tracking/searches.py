"""A search in MLflow: one run for the search, and a child for every trial and for every run of the final evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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

SEARCH = "search"
"""Key of the search's own run."""


class Space(Protocol):
    """What a search varies."""

    def configure(self, base: RunConfig, values: Any) -> RunConfig:
        """The configuration with these values."""


class Plan(Protocol):
    """What the record of a search needs to know of it."""

    @property
    def base(self) -> RunConfig:
        """The run that the trials vary."""

    @property
    def space(self) -> Space:
        """What is varied."""

    trials: int
    objectives: tuple[str, ...]
    sampler: Any
    stopping: Any
    seed: int


class Trial(Protocol):
    """What the record of a search needs to know of a trial."""

    number: int
    values: Any
    status: str
    reason: str
    epoch: int
    scores: dict[str, float]
    seconds: float

    @property
    def cost(self) -> float:
        """Millions of image passes."""


class SearchRecord:
    """Records a search while it runs; what is reported twice is recorded once."""

    def __init__(self, tracker: Tracker, name: str, plan: Plan) -> None:
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
        tags = self._tags(plan.base, "search") | {"status": "running", DESCRIPTION_TAG: self._description()}
        parameters = run_parameters(plan.base) | parameters
        if tracker.start(SEARCH, name, parameters=parameters, tags=tags, dataset=dataset_of(plan.base)):
            tracker.text(SEARCH, CONFIG_FILE, config_text(plan.base))
        self._system = watch(tracker, SEARCH)

    def started(self, row: Trial) -> None:
        """Start the child run of a trial; its parameters are the values that were searched."""
        config, key = self._plan.space.configure(self._plan.base, row.values), self._trial(row)
        self._child(
            key,
            f"trial {row.number}",
            config,
            parameters={name: parameter_text(value) for name, value in row.values.items()},
            tags=self._tags(config, "trial") | {"status": "running"},
        )

    def reported(self, row: Trial, result: dict[str, Any]) -> None:
        """Add an epoch to the curves of a trial."""
        seen = result["record"]
        record = EpochRecord(
            result["epoch"], seen["step"], result["seconds"], seen["diagnostics"], seen["validation"], seen["passes"]
        )
        self._tracker.metrics(self._trial(row), epoch_metrics(record), record.epoch)

    def ended(self, row: Trial) -> None:
        """Close the child run of a trial with its final scores, or with the reason why there are none."""
        key = self._trial(row)
        known = {"epochs": float(row.epoch), "seconds": row.seconds, "million_passes": row.cost}
        # What a stopped trial had reached was measured with less: under the same name it would look better than it is.
        scores = val_metrics(row.scores) if row.status == "finished" else {}
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
        key = f"verdict/{name}"
        tags = self._tags(config, "verdict") | {"status": "finished"}
        self._child(key, f"verdict: {name}", config, parameters=run_parameters(config), tags=tags)
        self._tracker.metrics(key, test_metrics(evaluation.scores()))
        for record in history:
            self._tracker.metrics(key, epoch_metrics(record), record.epoch)
        self._tracker.end(key)

    def register(self, name: str, directory: Path, scores: Mapping[str, float]) -> str:
        """Register the model of a run of the final evaluation; returns the name under which it is found.

        Args:
            name: of the run, as in `verdict`.
            directory: of the run.
            scores: on the test side.
        """
        model = f"colotride-{self._plan.base.data.name}"
        description = f"Winner of search {self._name} ({name}): {_listed(scores)} on the test classes."
        self._tracker.register(f"verdict/{name}", directory, model, scores, description)
        return model

    def close(
        self, best: Mapping[str, float], artifacts: Sequence[Path], directory: Path, *, failed: bool = False
    ) -> None:
        """Close the search's run with the best validation scores and its files.

        Args:
            best: scores of the best trial.
            artifacts: files below the search's directory.
            directory: of the search.
            failed: whether it ended with an error.
        """
        self._system.stop()
        self._tracker.metrics(SEARCH, val_metrics(best))
        for path in artifacts:
            below = path.relative_to(directory).parent.as_posix()
            self._tracker.artifact(SEARCH, path, None if below == "." else below)
        found = f"\n\nThe best trial: {_listed(best)} on the held-out classes." if best else ""
        files = ", ".join(f"`{path.name}`" for path in artifacts if path.suffix in (".html", ".yaml"))
        found += f" Among the artifacts: {files}." if files else ""
        status = "failed" if failed else "finished"
        self._tracker.tags(SEARCH, {"status": status, DESCRIPTION_TAG: self._description() + found})
        self._tracker.end(SEARCH, failed=failed)
        self._tracker.close()

    def pause(self) -> None:
        """Send what there is; the search is continued another time."""
        self._system.stop()
        self._tracker.tags(SEARCH, {"status": "interrupted"})
        self._tracker.close()

    def _child(
        self, key: str, name: str, config: RunConfig, *, parameters: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        dataset = dataset_of(config)
        if self._tracker.start(key, name, parameters=parameters, tags=tags, parent=SEARCH, dataset=dataset):
            self._tracker.text(key, CONFIG_FILE, config_text(config))

    def _description(self) -> str:
        plan = self._plan
        return (
            f"Search over {plan.trials} configurations of {plan.base.defense.name} on {plan.base.data.name} for the "
            f"highest {' and '.join(plan.objectives)} on classes held out from training (sampler: {plan.sampler}, early "
            f"stopping: {plan.stopping}). Every trial is a child run whose parameters are the searched values; to "
            "compare the trials, select them and press Compare."
        )

    def _trial(self, row: Trial) -> str:
        return f"trial/{row.number}"

    def _tags(self, config: RunConfig, kind: str) -> dict[str, str]:
        return run_tags(config, kind) | {"search": self._name}


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {scores[name]:.1f}" for name in ("ARS", "ERS", "R@1") if name in scores)
