"""One trial: the trainer on the training side without its validation part, judged on that part after every epoch."""

from pathlib import Path
from typing import Any

import torch
from ray import tune

from colotride.command_line import device_of
from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.history import EpochRecord
from colotride.training import Trainer
from tune.space import Space

OBJECTIVE = "ARS"


def run_trial(values: dict[str, Any], *, base: RunConfig, space: Space, threads: int, device: str) -> None:
    """Train with the drawn values in this process and report every validated epoch to Ray Tune.

    The model is checkpointed in the trial's own folder: a trial that is started again goes on where it was.

    Args:
        values: drawn from the space.
        base: the run that the values change.
        space: says where the values belong.
        threads: for torch.
        device: where to compute.
    """
    torch.set_num_threads(threads)
    config = space.configure(base, values)
    splits = load_splits(config.data)
    folder = Path(tune.get_context().get_trial_dir())
    trainer = Trainer(config, splits.train, splits.validation, device=device_of(device), directory=folder)
    epochs = config.optimisation.epochs

    def report(record: EpochRecord) -> None:
        if record.validation:
            tune.report(reported(record, "running" if record.epoch < epochs else "finished"))

    outcome = trainer.run(on_epoch=report)
    if outcome.status not in ("finished", "interrupted"):
        tune.report(reported(outcome.history[-1], outcome.status, outcome.reason))


def reported(record: EpochRecord, status: str, reason: str = "") -> dict[str, Any]:
    """What Ray, Optuna and the table see of an epoch; a lost model's objective is 0, as it retrieves nothing."""
    scores = {name: record.validation.get(name, 0.0) for name in (OBJECTIVE, "ERS", "R@1")}
    return {
        **scores,
        "epoch": record.epoch,
        "status": status,
        "reason": reason,
        "seconds": record.seconds,
        "record": {"diagnostics": record.diagnostics, "validation": record.validation, "step": record.step},
    }
