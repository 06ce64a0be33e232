"""The verdict: configurations retrained on all training classes and evaluated on the test classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from colotride.command_line import device_of
from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation, load_evaluation, save_evaluation
from colotride.history import EpochRecord
from colotride.training import Trainer


@dataclass(frozen=True)
class Judged:
    """A retrained model's course and its scores on the test side."""

    status: str
    reason: str
    history: list[EpochRecord]
    evaluation: Evaluation | None
    """None where training ended in NaN or diverged; a collapsed model is evaluated as it is."""


def judge(config: RunConfig, directory: Path, *, device: str, threads: int) -> Judged:
    """Train on all training classes, then evaluate on the test classes with every attack.

    Args:
        config: of the run; nothing is held out, whatever it says.
        directory: becomes the run's folder, with the result in `evaluation/`; what it holds already is not done again.
        device: where to compute.
        threads: for torch.
    """
    torch.set_num_threads(threads)
    config = config.with_values({"data.hold_out_validation": False})
    splits, place = load_splits(config.data), device_of(device)
    trainer = Trainer(config, splits.train, None, device=place, directory=directory)
    outcome = trainer.run()
    known = directory / "evaluation"
    if (known / "evaluation.json").is_file():
        return Judged(outcome.status, outcome.reason, outcome.history, load_evaluation(known))
    if outcome.status in ("nan", "diverged"):
        return Judged(outcome.status, outcome.reason, outcome.history, None)
    result = evaluate(
        trainer.model, splits.test, config.evaluation, image_size=config.data.image_size, seed=config.seed, device=place
    )
    save_evaluation(result, known)
    return Judged(outcome.status, outcome.reason, outcome.history, result)


def judge_each(
    configs: Mapping[Path, RunConfig], *, device: str, cpus: int, gpus: float, concurrent: int | None = None
) -> Iterator[tuple[Path, Judged]]:
    """Judge several configurations side by side on Ray's workers, and hand each over as it ends.

    Args:
        configs: by the folder of their run; absolute, because workers have other working directories.
        device: where to compute.
        cpus: of one run.
        gpus: of one run.
        concurrent: at most so many at once; None for as many as fit.
    """
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=1)(judge)
    waiting = list(configs.items())
    running: dict[ray.ObjectRef, Path] = {}
    while waiting or running:
        while waiting and len(running) < (concurrent or len(configs)):
            folder, config = waiting.pop(0)
            running[task.remote(config, folder, device=device, threads=cpus)] = folder
        (ended, *_), _ = ray.wait(list(running))
        yield running.pop(ended), ray.get(ended)


def judge_all(
    configs: Mapping[str, RunConfig], folder: Path, *, device: str, cpus: int, gpus: float
) -> dict[str, Judged]:
    """Judge several configurations and wait for all; each gets its own folder, named like it."""
    named = {(folder / name).absolute(): name for name in configs}
    ended = judge_each({path: configs[name] for path, name in named.items()}, device=device, cpus=cpus, gpus=gpus)
    judged = {named[path]: one for path, one in ended}
    return {name: judged[name] for name in configs}
