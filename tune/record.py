"""The search in MLflow: one run for the search, a child for every trial and for every verdict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colotride.config import RunConfig
from colotride.evaluation.results import Evaluation
from colotride.tracking import Tracker, epoch_metrics, flat_parameters, metric_name, test_metrics
from colotride.training import EpochRecord
from tune.space import Space
from tune.trials import TrialRow


class SearchRecord:
    """Writes a search into MLflow as it goes; a `Listener`."""

    def __init__(self, tracker: Tracker, name: str, base: RunConfig, space: Space, trials: int) -> None:
        self._tracker, self._base, self._space = tracker, base, space
        self._tags = {"search": name, "dataset": base.data.name, "defense": base.defense.name}
        self._children: dict[int, str | None] = {}
        self.parent = tracker.start(
            name, parameters=flat_parameters(base) | {"trials": str(trials)}, tags={**self._tags, "kind": "search"}
        )

    def started(self, row: TrialRow) -> None:
        """Begin the child run of a trial, with all its settings."""
        config = self._space.configure(self._base, row.values)
        named = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in row.values.items()}
        self._children[row.number] = self._tracker.start(
            f"trial {row.number}",
            parameters=flat_parameters(config) | named,
            tags={**self._tags, "kind": "trial"},
            parent=self.parent,
        )

    def reported(self, row: TrialRow, result: dict[str, Any]) -> None:
        """Add an epoch to the curves of a trial."""
        seen = result["record"]
        record = EpochRecord(
            row.epoch, seen["step"], result["seconds"], seen["diagnostics"], seen["validation"] or dict(row.scores)
        )
        self._tracker.metrics(self._children[row.number], epoch_metrics(record), row.epoch)

    def ended(self, row: TrialRow) -> None:
        """Close the child run of a trial with its final scores, or with the reason why there are none."""
        run = self._children[row.number]
        self._tracker.metrics(run, {**_plain(row.scores), "epochs": row.epoch, "seconds": row.seconds}, row.epoch)
        self._tracker.tags(run, {"status": row.status, "reason": row.reason})
        self._tracker.end(run, failed=row.status not in ("finished", "stopped"))

    def verdict(self, name: str, config: RunConfig, history: list[EpochRecord], evaluation: Evaluation) -> None:
        """Add a retrained model as a child run: its curves, and its scores on the test classes."""
        run = self._tracker.start(
            f"verdict: {name}",
            parameters=flat_parameters(config),
            tags={**self._tags, "kind": "verdict", "status": "finished"},
            parent=self.parent,
        )
        for record in history:
            self._tracker.metrics(run, epoch_metrics(record), record.epoch)
        self._tracker.metrics(run, test_metrics(evaluation.scores()))
        self._tracker.end(run)

    def close(self, best: Mapping[str, float], artifacts: list[Path], *, failed: bool = False) -> None:
        """Close the search's run with the best validation scores and its files."""
        self._tracker.metrics(self.parent, _plain(best))
        for path in artifacts:
            self._tracker.artifact(self.parent, path)
        self._tracker.tags(self.parent, {"status": "failed" if failed else "finished"})
        self._tracker.end(self.parent, failed=failed)


def _plain(scores: Mapping[str, float]) -> dict[str, float]:
    return {metric_name(name): value for name, value in scores.items()}
