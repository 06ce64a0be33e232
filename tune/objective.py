"""One trial: the trainer on the training side without its validation part, judged on that part as it goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.devices import device_of
from colotride.distributed.ray_train import Workers, train_on_workers
from colotride.errors import WorkerError
from colotride.training.records import EpochRecord, Outcome
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.trainer import Trainer
from colotride.tune.plan import SHOWN_SCORES, Plan
from colotride.tune.searcher import OUT_OF_MEMORY

MILLION = 1e6


@dataclass(frozen=True)
class TrialResources:
    """Where trials run and what one of them has."""

    folder: Path
    """Of all trials; each has its own below. Seen from every machine, unless there is `storage`."""
    device: str
    threads: int
    """Of torch, in a trial without workers of its own."""
    workers: Workers | None = None
    """Of each trial; None trains in the trial's own process."""
    storage: str | None = None
    """URI of second copies of all trials' folders."""

    def of(self, number: int) -> tuple[Path, CheckpointPolicy]:
        """The folder of one trial, and how it is kept."""
        name = f"{number:03d}"
        return self.folder / name, CheckpointPolicy(storage=None if self.storage is None else f"{self.storage}/{name}")


class Reporter:
    """Reports every validated epoch to Ray Tune, and ends the trial when its cost is spent."""

    def __init__(self, plan: Plan) -> None:
        self._epochs, self._every, self._max_cost = plan.epochs, plan.base.validation.every, plan.max_cost
        self._cost, self.spent = 0.0, False

    def epoch(self, record: EpochRecord) -> None:
        """Report an epoch."""
        passes = record.passes / MILLION
        self._cost += passes
        if record.validation:
            # The next score would cost as many epochs as there are between two validations.
            self.spent = self._max_cost is not None and self._cost + self._every * passes > self._max_cost
            early = self.spent and record.epoch < self._epochs
            reason = f"its cost of {self._max_cost:g} M passes is spent" if early else ""
            ended = early or record.epoch == self._epochs
            tune.report(reported(record, "finished" if ended else "running", self._cost, reason))

    def lost(self, outcome: Outcome) -> None:
        """Report a model that was lost."""
        if outcome.status not in ("finished", "interrupted"):
            tune.report(reported(outcome.history[-1], outcome.status, self._cost, outcome.reason))

    def out_of_memory(self, history: list[EpochRecord], reason: str) -> None:
        """Report that the GPU was too full."""
        last = history[-1] if history else EpochRecord(0, 0, 0.0, {})
        tune.report(reported(last, OUT_OF_MEMORY, self._cost, reason))


def run_trial(given: dict[str, Any], *, plan: Plan, place: TrialResources) -> None:
    """Train one drawn configuration and report its epochs, those of before an interruption included.

    Args:
        given: number and values of the trial.
        plan: of the search.
        place: where to train.
    """
    config = plan.space.configure(plan.base, given["values"])
    folder, checkpoint_policy = place.of(given["number"])
    reporter = Reporter(plan)
    train = _here if place.workers is None else _there
    history: list[EpochRecord] = []
    try:
        train(config, folder, checkpoint_policy, place, reporter, history)
    except (torch.OutOfMemoryError, WorkerError) as error:
        if isinstance(error, WorkerError) and "OutOfMemory" not in str(error):
            raise
        reporter.out_of_memory(history, str(error).splitlines()[0])


def _here(
    config: RunConfig,
    folder: Path,
    checkpoint_policy: CheckpointPolicy,
    place: TrialResources,
    reporter: Reporter,
    history: list[EpochRecord],
) -> None:
    torch.set_num_threads(place.threads)
    splits, device = load_splits(config.data), device_of(place.device)
    trainer = Trainer(
        config, splits.train, splits.validation, device=device, directory=folder, checkpoint_policy=checkpoint_policy
    )
    for record in trainer.history:
        reporter.epoch(record)
    history += trainer.history

    def on_epoch(record: EpochRecord) -> None:
        history.append(record)
        reporter.epoch(record)

    reporter.lost(trainer.run(on_epoch=on_epoch, should_stop=lambda: reporter.spent))


def _there(
    config: RunConfig,
    folder: Path,
    checkpoint_policy: CheckpointPolicy,
    place: TrialResources,
    reporter: Reporter,
    history: list[EpochRecord],
) -> None:
    assert place.workers is not None

    def on_epoch(record: EpochRecord) -> None:
        history.append(record)
        reporter.epoch(record)

    outcome = train_on_workers(
        config,
        place.workers,
        folder,
        checkpoint_policy=checkpoint_policy,
        on_epoch=on_epoch,
        should_stop=lambda: reporter.spent,
    )
    reporter.lost(outcome)


def reported(record: EpochRecord, status: str, cost: float, reason: str = "") -> dict[str, Any]:
    """What Ray, Optuna and the table see of an epoch; a lost model's scores are 0, as it retrieves nothing.

    Args:
        record: of the epoch.
        status: running, finished, or what the model was lost to.
        cost: millions of image passes behind the trial.
        reason: why it ended.
    """
    scores = {name: record.validation.get(name, 0.0) for name in SHOWN_SCORES}
    return {
        **scores,
        "epoch": record.epoch,
        "status": status,
        "reason": reason,
        "seconds": record.seconds,
        "cost": cost,
        "record": {
            "diagnostics": record.diagnostics,
            "validation": record.validation,
            "step": record.step,
            "passes": record.passes,
        },
    }
