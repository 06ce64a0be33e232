"""Train one model: COLO-TRIDE or a baseline, on one machine.

Examples:
    python scripts/train.py --preset digits --directory runs/first
    python scripts/train.py --preset cub --data-root ~/data --run.pgd.epsilon 4/255
    python scripts/train.py --defense natural --run.seed 3
    python scripts/train.py --config runs/search/digits-1/best.yaml
"""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from colotride.command_line import base_config, device_of, parse, run
from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.presets import with_data_root
from colotride.tracking import RunRecord
from colotride.training import EpochRecord, Trainer


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
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data sets (default: $COLOTRIDE_DATA, or the configuration's)."""
    directory: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder (default: runs/<data set>-<defense>-<date>); an existing run in it is resumed."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    tracking_uri: str | None = None
    """MLflow store (default: $MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)."""
    track: bool = True
    """Record the run in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Train as the arguments say; the exit code is 0 when the run finished, 1 when the model was lost."""
    command = parse(Train, arguments, Train(run=base_config(arguments)))
    config = with_data_root(command.run, command.data_root)
    device = device_of(command.device)
    splits = load_splits(config.data)
    directory = command.directory or Path("runs") / time.strftime(
        f"{config.data.name}-{config.defense.name}-%Y%m%d-%H%M%S"
    )
    trainer = Trainer(config, splits.train, splits.validation, device=device, directory=directory)
    console = Console(stderr=True)
    if trainer.step:
        console.print(f"Resuming {directory} in epoch {trainer.epoch + 1}, after {trainer.step} batches")
    record = RunRecord.open(directory, config, command.tracking_uri) if command.track else None
    with _progress(console) as progress, StopOnSignals() as stopped:
        task = progress.add_task(f"epoch {trainer.epoch + 1}/{config.optimisation.epochs}", total=None)

        def on_step(done: int, total: int) -> None:
            label = f"epoch {trainer.epoch + 1}/{config.optimisation.epochs}"
            progress.update(task, completed=done, total=total, description=label)

        def on_epoch(done: EpochRecord) -> None:
            console.print(epoch_line(done), highlight=False)
            if record:
                record.epoch(done)

        outcome = trainer.run(on_epoch, on_step, stopped)
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


if __name__ == "__main__":
    run(main)
