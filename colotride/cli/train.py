"""Train one model: COLO-TRIDE or a baseline, in this process or on several GPUs and machines.

Examples:
    python scripts/train.py --preset digits --directory runs/first
    python scripts/train.py --preset cub --data-root ~/data --run.pgd.epsilon 4/255
    python scripts/train.py --defense natural --run.seed 3
    python scripts/train.py --config runs/search/digits-1/best.yaml
    python scripts/train.py --preset sop --data-root ~/data --workers 4 --gpu --checkpoint-minutes 10
    python scripts/train.py --preset cub --workers 2:8 --gpu --storage s3://bucket/runs/cub-1
"""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from colotride.cli.options import base_config, device_of, parse
from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.presets import with_data_root
from colotride.tracking.runs import RunRecord
from colotride.training.checkpoint import CHECKPOINTS, checkpoints_in
from colotride.training.records import EpochRecord, Outcome
from colotride.training.run_directory import CheckpointPolicy, RunFolder
from colotride.training.trainer import Trainer


@dataclass(frozen=True)
class Train:
    """Train one model; an interrupted run continues where it stopped when the same command is given again."""

    run: RunConfig
    preset: str = "digits"
    """Start from the settings of a data set: digits, fashion-mnist, cub, cars or sop."""
    config: Path | None = None
    """Start from a configuration in YAML instead (a run's config.yaml, a search's best.yaml)."""
    defense: str | None = None
    """Replace the defense by another one with its defaults."""
    data_root: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data sets (default: $COLOTRIDE_DATA, or the configuration's)."""
    directory: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder (default: runs/<data set>-<defense>-<date>); an existing run in it is resumed."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; with --workers see --gpu."""
    workers: str | None = None
    """Train on so many of Ray's workers (4), or on as many as there is room for (2:8); the batch is divided among them.
    Ray is started on this machine, or joined where RAY_ADDRESS says."""
    gpu: bool = False
    """Give every worker a GPU."""
    cpus_per_worker: int | None = None
    """CPU cores of a worker (default: an equal share of this machine's)."""
    max_failures: int = 3
    """How often workers that failed are started again; -1 for any number of times."""
    checkpoint_minutes: float | None = None
    """Write a checkpoint after so many minutes too, not only after every epoch."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints remain."""
    storage: str | None = None
    """Keep a second copy of the run's folder there, and start from it where the folder is gone: s3://..., gs://...,
    file:///..."""
    tracking_uri: str | None = None
    """MLflow store (default: $MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)."""
    track: bool = True
    """Record the run in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Train as the arguments say; the exit code is 0 when the run finished, 1 when the model was lost."""
    command = parse(Train, arguments, Train(run=base_config(arguments)))
    config = with_data_root(command.run, command.data_root)
    directory = command.directory or Path("runs") / time.strftime(
        f"{config.data.name}-{config.defense.name}-%Y%m%d-%H%M%S"
    )
    checkpoint_policy = CheckpointPolicy(command.checkpoint_minutes, command.keep_checkpoints, command.storage)
    console = Console(stderr=True)
    if checkpoints_in(directory / CHECKPOINTS):
        console.print(f"Resuming {directory}")
    if command.workers is None:
        train = _here(command, config, directory, checkpoint_policy)
    else:
        train = _there(command, command.workers, config, directory, checkpoint_policy)
    record = RunRecord.open(directory, config, command.tracking_uri) if command.track else None
    with _progress(console) as progress, StopOnSignals() as stopped:
        task = progress.add_task("starting", total=None)

        def on_step(epoch: int, done: int, total: int) -> None:
            label = f"epoch {epoch}/{config.training.epochs}"
            progress.update(task, completed=done, total=total, description=label)

        def on_epoch(done: EpochRecord) -> None:
            console.print(epoch_line(done), highlight=False)
            if record:
                record.epoch(done)

        outcome = train(on_epoch=on_epoch, on_step=on_step, should_stop=stopped)
    if record:
        record.end(outcome)
    console.print(f"{outcome.status}{': ' + outcome.reason if outcome.reason else ''} — {directory}")
    if outcome.status == "interrupted":
        console.print(
            f"Continue with: python scripts/train.py --config {directory}/config.yaml --directory {directory}"
        )
        return 130
    console.print(f"Evaluate with: python scripts/evaluate.py --model {directory}")
    return 0 if outcome.status == "finished" else 1


def _here(
    command: Train, config: RunConfig, directory: Path, checkpoint_policy: CheckpointPolicy
) -> Callable[..., Outcome]:
    splits, device = load_splits(config.data), device_of(command.device)
    trainer = Trainer(
        config, splits.train, splits.validation, device=device, directory=directory, checkpoint_policy=checkpoint_policy
    )
    return trainer.run


def _there(
    command: Train, workers: str, config: RunConfig, directory: Path, checkpoint_policy: CheckpointPolicy
) -> Callable[..., Outcome]:
    # Ray takes seconds to import, and a machine without it can train all the same.
    from colotride.distributed.ray_cluster import start_ray
    from colotride.distributed.ray_train import Workers, train_on_workers

    wanted = Workers.parse(workers, gpu=command.gpu, cpus=command.cpus_per_worker)
    load_splits(config.data)
    start_ray()
    wanted.check()
    # Begins the folder, or refuses one of another run before any worker has come up.
    RunFolder(directory, config, checkpoint_policy).open()
    return partial(
        train_on_workers,
        config,
        wanted,
        directory,
        checkpoint_policy=checkpoint_policy,
        max_failures=command.max_failures,
    )


def epoch_line(record: EpochRecord) -> str:
    """One epoch in one line: loss, the state of the embedding, and the validation scores if there are any."""
    shown = record.diagnostics
    parts = [
        f"epoch {record.epoch:>3}",
        f"loss {shown['loss']:.4f}",
        f"d(A,P) {shown['distance_anchor_positive']:.3f}",
        f"d(A,N) {shown['distance_anchor_negative']:.3f}",
        f"C {shown['collapseness']:+.3f}",
        *(f"{name} {record.validation[name]:.1f}" for name in ("R@1", "ERS", "ARS") if name in record.validation),
        f"{record.seconds:.1f} s",
    ]
    return "  ".join(parts)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class StopOnSignals:
    """SIGINT and SIGTERM ask the trainer to stop after the running batch; a second SIGINT ends the process at once."""

    def __enter__(self) -> Callable[[], bool]:
        self._asked = False
        self._former = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return lambda: self._asked

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
