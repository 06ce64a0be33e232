"""The verdict: configurations retrained on all training classes and evaluated on the test classes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from colotride.atomic import write_atomically
from colotride.command_line import device_of
from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.evaluation.evaluator import Evaluation, evaluate
from colotride.training import EpochRecord, Trainer


@dataclass(frozen=True)
class Judged:
    """A retrained model's course and its scores on the test side."""

    status: str
    reason: str
    history: list[EpochRecord]
    evaluation: Evaluation | None
    """None where the model was lost while training."""


def judge(config: RunConfig, directory: Path, *, device: str, threads: int) -> Judged:
    """Train on all training classes, then evaluate on the test classes with every attack.

    Args:
        config: of the run; nothing is held out, whatever it says.
        directory: becomes the run's folder, with `evaluation.json`.
        device: where to compute.
        threads: for torch.
    """
    torch.set_num_threads(threads)
    config = config.with_values({"data.hold_out_validation": False})
    splits, place = load_splits(config.data), device_of(device)
    trainer = Trainer(config, splits.train, None, device=place, directory=directory)
    outcome = trainer.run()
    if outcome.status != "finished":
        return Judged(outcome.status, outcome.reason, outcome.history, None)
    result = evaluate(
        trainer.model, splits.test, config.evaluation, image_size=config.data.image_size, seed=config.seed, device=place
    )
    write_atomically(directory / "evaluation.json", (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    return Judged(outcome.status, outcome.reason, outcome.history, result)


def judge_all(
    configs: Mapping[str, RunConfig], folder: Path, *, device: str, cpus: int, gpus: float
) -> dict[str, Judged]:
    """Judge several configurations side by side on Ray's workers; each gets its own folder, named like it."""
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=1)(judge)
    running = {
        name: task.remote(config, folder / name, device=device, threads=cpus) for name, config in configs.items()
    }
    return dict(zip(running, ray.get(list(running.values())), strict=True))
