"""One trial: the trainer on the training side without its validation part, validated on that part while it trains."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from ray import tune

from colotride.distributed.drain import DrainNotice
from colotride.distributed.launch import prepare_training
from colotride.errors import WorkerError
from colotride.training.records import EpochRecord, Outcome
from colotride.tune.plan import SearchPlan
from colotride.tune.records import OUT_OF_MEMORY, TrialRecord
from colotride.tune.resources import SearchFolders, TrialResources

RECORD = "record"
"""Key of the trial's record in what Ray carries."""


def run_trial(given: Mapping[str, Any], plan: SearchPlan, resources: TrialResources, folders: SearchFolders) -> None:
    """Train a trial's configuration and report its record to Ray Tune after every validated epoch.

    Epochs that a former process trained are read from the trial's checkpoint and reported again.

    Args:
        given: by `StudySearcher.suggest`; holds the record of the trial, as it was drawn.
        plan: of the search.
        resources: of the trial.
        folders: where it keeps its checkpoints.

    Raises:
        ColoTrideError: whatever the trainer raises; running out of GPU memory is reported instead.
    """
    record: TrialRecord = given[RECORD]
    folder, policy = folders.trial(record.number)
    report = TrialReport(dataclasses.replace(record, status="running", reason="", history=()), plan)
    try:
        torch.set_num_threads(resources.cpus)
        resources.limit(exclusive=given["exclusive"])
        train = prepare_training(
            record.config,
            folder,
            device=resources.device,
            workers=resources.workers,
            checkpoint_policy=policy,
            should_save=DrainNotice(),
        )
        outcome = train(on_epoch=report.epoch, should_stop=lambda: report.cost.spent)
    except (torch.OutOfMemoryError, WorkerError) as error:
        if isinstance(error, WorkerError) and "OutOfMemory" not in str(error):
            raise
        report.end(OUT_OF_MEMORY, str(error).splitlines()[0])
        return
    report.outcome(outcome)


class TrialReport:
    """Reports a trial's record to Ray Tune, and ends the trial when its cost is spent.

    Attributes:
        cost: what the trial has used of the image passes that it was allowed.
    """

    def __init__(self, record: TrialRecord, plan: SearchPlan) -> None:
        self._record, self._plan = record, plan
        self.cost = plan.cost_limit()

    def epoch(self, done: EpochRecord) -> None:
        """Add an epoch, and report where it was validated."""
        self._record = dataclasses.replace(self._record, history=(*self._record.history, done))
        self.cost.add(done)
        if not done.validation:
            return
        if done.epoch == self._plan.epochs:
            self.end("finished")
        elif self.cost.spent:
            self.end("finished", self.cost.reason)
        else:
            self.end("running")

    def outcome(self, outcome: Outcome) -> None:
        """Report a model that has failed."""
        if outcome.status not in ("finished", "interrupted"):
            self._record = dataclasses.replace(self._record, history=tuple(outcome.history))
            self.end(outcome.status, outcome.reason)

    def end(self, status: str, reason: str = "") -> None:
        """Report the record as it is now."""
        self._record = self._record.with_end(status, reason)
        tune.report({RECORD: self._record})
