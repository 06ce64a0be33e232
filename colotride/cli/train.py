"""Train one model: COLO-TRIDE or a baseline, in this process or on several GPUs and machines.

Examples:
    colotride train --dataset digits --directory runs/first
    colotride train --dataset cub --data-root ~/data --run.pgd.epsilon 4/255
    colotride train --defense natural --run.seed 3
    colotride train --config runs/search/digits-1/best.yaml
    colotride train --dataset sop --data-root ~/data --workers 4 --gpu --checkpoint-minutes 10
    colotride train --dataset cub --workers 2:8 --gpu --storage s3://bucket/runs/cub-1
"""

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from colotride.cli.configuration import run_config
from colotride.cli.options.train import Train
from colotride.cli.records import begin_record
from colotride.distributed.launch import prepare_training
from colotride.locking import owned
from colotride.terminal import Terminal
from colotride.training.adaptive_steps import is_weak
from colotride.training.checkpoint import CHECKPOINTS, checkpoints_in
from colotride.training.records import EpochRecord
from colotride.training.run_directory import CheckpointPolicy

if TYPE_CHECKING:
    from colotride.distributed.ray_train import Workers


def main(command: Train) -> int:
    """Train as the arguments say; the exit code is 0 when the run finished, 1 when the model was lost."""
    config = run_config(command)
    given = {"training.epochs": command.epochs, "seed": command.seed}
    config = config.with_values({name: value for name, value in given.items() if value is not None})
    directory = command.directory or Path("runs") / time.strftime(
        f"{config.data.name}-{config.defense.name}-%Y%m%d-%H%M%S"
    )
    checkpoint_policy = CheckpointPolicy(command.checkpoint_minutes, command.keep_checkpoints, command.storage)
    console = Terminal(stderr=True)
    if checkpoints_in(directory / CHECKPOINTS):
        console.print(f"Resuming {directory}", soft_wrap=True)
    # Two processes in one folder would mix their checkpoints, and double what MLflow records.
    with owned(directory, "run"):
        train = prepare_training(
            config,
            directory,
            device=command.device,
            workers=_workers(command),
            checkpoint_policy=checkpoint_policy,
            max_failures=command.max_failures,
        )
        record = begin_record(directory, config, command.tracking_uri, console) if command.track else None
        with _progress(console) as progress, StopOnSignals() as stopped:
            task = progress.add_task("starting", total=None)

            def on_step(epoch: int, done: int, total: int) -> None:
                label = f"epoch {epoch}/{config.training.epochs}"
                progress.update(task, completed=done, total=total, description=label)

            def on_epoch(done: EpochRecord) -> None:
                console.print(epoch_line(done))
                if record:
                    record.epoch(done)

            outcome = train(on_epoch=on_epoch, on_step=on_step, should_stop=stopped)
        if record:
            record.end(outcome)
    console.print(f"{outcome.status}{': ' + outcome.reason if outcome.reason else ''} — {directory}", soft_wrap=True)
    if outcome.status == "interrupted":
        console.print(
            f"Continue with: colotride train --config {directory}/config.yaml --directory {directory}", soft_wrap=True
        )
        return 130
    console.print(f"Evaluate with: colotride evaluate --model {directory}", soft_wrap=True)
    return 0 if outcome.status == "finished" else 1


def _workers(command: Train) -> "Workers | None":
    if command.workers is None:
        return None
    # Ray takes seconds to import, and a machine without it can train all the same.
    from colotride.distributed.ray_train import Workers

    return Workers.parse(command.workers, gpu=command.gpu, cpus=command.cpus_per_worker)


def epoch_line(record: EpochRecord) -> str:
    """One epoch in one line: loss, the state of the embedding, and the validation scores if there are any."""
    shown = record.diagnostics
    parts = [
        f"epoch {record.epoch:>3}",
        f"loss {shown['loss']:.4f}",
        f"d(A,P) {shown['distance_anchor_positive']:.3f}",
        f"d(A,N) {shown['distance_anchor_negative']:.3f}",
        f"C {shown['collapseness']:+.3f}",
        *_steps(shown),
        *(f"{name} {record.validation[name]:.1f}" for name in ("R@1", "ERS", "ARS") if name in record.validation),
        f"{record.seconds:.1f} s",
    ]
    return "  ".join(parts)


def _steps(diagnostics: Mapping[str, float]) -> list[str]:
    """What adaptive steps have found: the steps of the epoch, and whether the next ones will be finer."""
    if "perturbation_strength" not in diagnostics:
        return []
    strength, steps = diagnostics["perturbation_strength"], int(diagnostics["pgd_steps"])
    doubled = ", now doubled" if is_weak(strength, steps) else ""
    return [f"strength {strength:.2f} with {steps} {'step' if steps == 1 else 'steps'}{doubled}"]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class StopOnSignals:
    """Ctrl-C asks the trainer to stop after the running batch; a second one ends the process at once.

    SIGTERM does what Ctrl-C does, see `colotride.cli.main`; a scheduler may send it more than once.
    """

    def __enter__(self) -> Callable[[], bool]:
        self._asked = False
        self._former = signal.signal(signal.SIGINT, self._ask)
        return lambda: self._asked

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._former)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
