"""In this process or on Ray's workers: decided here alone. Ray is imported only where it is used."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from colotride.config import RunConfig
from colotride.data.base import ImageSet
from colotride.data.splits import load_splits
from colotride.devices import device_of
from colotride.evaluation.chunks import Executor
from colotride.training.records import EpochRecord, Outcome
from colotride.training.run_directory import CheckpointPolicy, RunDirectory
from colotride.training.trainer import Trainer

if TYPE_CHECKING:
    from colotride.distributed.ray_train import Workers

Launch = Callable[..., Outcome]
"""Trains; takes `on_epoch`, `on_step` and `should_stop`, see `train_on_workers`."""


def prepare_training(
    config: RunConfig,
    directory: Path,
    *,
    device: str = "auto",
    workers: "Workers | None" = None,
    checkpoint_policy: CheckpointPolicy | None = None,
    max_failures: int = 3,
    should_save: Callable[[], bool] | None = None,
) -> Launch:
    """Load what a run needs, and return the function that trains it, from its newest checkpoint where there is one.

    Either way `on_epoch` is called once for every epoch, including those from before a resume.

    Args:
        config: of the run.
        directory: of the run.
        device: name of the device to train on; workers have their own.
        workers: to train on; None trains in this process.
        checkpoint_policy: how checkpoints are kept.
        max_failures: how often workers are started again after a fault.
        should_save: asked before every batch in this process; true writes a checkpoint. Workers have their own.

    Raises:
        ColoTrideError: the data, the directory or the machines are not what the run needs.
    """
    policy = checkpoint_policy or CheckpointPolicy()
    splits = load_splits(config.data)
    if workers is None:
        trainer = Trainer(
            config,
            splits.train,
            splits.validation,
            device=device_of(device),
            directory=directory,
            checkpoint_policy=policy,
        )
        return partial(_train_here, trainer, should_save)
    from colotride.distributed.ray_cluster import start_ray
    from colotride.distributed.ray_train import train_on_workers

    workers.check()
    start_ray()
    # Begins the directory, or refuses that of another run before any worker starts.
    RunDirectory(directory, config, policy).open()
    return partial(train_on_workers, config, workers, directory, checkpoint_policy=policy, max_failures=max_failures)


def _train_here(
    trainer: Trainer,
    should_save: Callable[[], bool] | None,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Outcome:
    if on_epoch is not None:
        for record in trainer.history:
            on_epoch(record)
    return trainer.run(on_epoch=on_epoch, on_step=on_step, should_stop=should_stop, should_save=should_save)


def evaluation_executor(
    load: Callable[[], tuple[nn.Module, ImageSet]], workers: int, *, gpus: float = 0.0, cpus: int = 1
) -> Executor[Any, Any] | None:
    """The executor of an evaluation's parts on several workers; None, for this process, where there is one.

    Args:
        load: makes the model and the images on a worker.
        workers: how many.
        gpus: of each worker.
        cpus: of each worker.
    """
    if workers == 1:
        return None
    from colotride.distributed.ray_cluster import on_workers

    return on_workers(load, workers, gpus=gpus, cpus=cpus)
