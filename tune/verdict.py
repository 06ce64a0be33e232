"""The verdict: configurations retrained on all training classes and evaluated on the test classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
import torch
from torch import nn

from colotride.config import RunConfig
from colotride.data.base import ImageSet
from colotride.data.splits import load_splits
from colotride.devices import device_of
from colotride.distributed.ray_cluster import on_workers
from colotride.distributed.ray_train import Workers, train_on_workers
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation, load_evaluation, save_evaluation
from colotride.training.records import EpochRecord
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.runs import load_run
from colotride.training.trainer import Trainer

DRIVING = 0.01
"""CPU of a process that only drives workers of its own; Ray refuses 0."""


@dataclass(frozen=True)
class Judged:
    """A retrained model's course and its scores on the test side."""

    status: str
    reason: str
    history: list[EpochRecord]
    evaluation: Evaluation | None
    """None where training ended in NaN or diverged; a collapsed model is evaluated as it is."""


def judge(config: RunConfig, directory: Path, *, device: str, threads: int, workers: Workers | None = None) -> Judged:
    """Train on all training classes, then evaluate on the test classes with every attack.

    Args:
        config: of the run; nothing is held out, whatever it says.
        directory: becomes the run's folder, with the result in `evaluation/`; what it holds already is not done again.
        device: where to compute.
        threads: for torch.
        workers: to train and evaluate on; None does it in this process.
    """
    torch.set_num_threads(threads)
    config = config.with_values({"data.hold_out_validation": False})
    splits = load_splits(config.data)
    if workers is None:
        outcome = Trainer(config, splits.train, None, device=device_of(device), directory=directory).run()
        executor = None
    else:
        outcome = train_on_workers(config, workers, directory, checkpoint_policy=CheckpointPolicy())
        load = partial(_model_and_images, directory)
        executor = on_workers(load, workers.most, gpus=float(workers.gpu), cpus=workers.cpus)
    known = directory / "evaluation"
    if (known / "evaluation.json").is_file():
        return Judged(outcome.status, outcome.reason, outcome.history, load_evaluation(known))
    if outcome.status in ("nan", "diverged"):
        return Judged(outcome.status, outcome.reason, outcome.history, None)
    place = torch.device("cpu") if workers is not None else device_of(device)
    model, images = _model_and_images(directory)
    result = evaluate(
        model.to(place),
        images,
        config.evaluation,
        image_size=config.data.image_size,
        seed=config.seed,
        device=place,
        executor=executor,
    )
    save_evaluation(result, known)
    return Judged(outcome.status, outcome.reason, outcome.history, result)


def _model_and_images(directory: Path) -> tuple[nn.Module, ImageSet]:
    config, model = load_run(directory)
    return model, load_splits(config.data).test


def judge_each(
    configs: Mapping[Path, RunConfig],
    *,
    device: str,
    cpus: int,
    gpus: float,
    concurrent: int | None = None,
    workers: Workers | None = None,
) -> Iterator[tuple[Path, Judged]]:
    """Judge several configurations side by side on Ray's workers, and hand each over as it ends.

    Args:
        configs: by the folder of their run; absolute, because workers have other working directories.
        device: where to compute.
        cpus: of one run.
        gpus: of one run.
        concurrent: at most so many at once; None for as many as fit.
        workers: that each run is trained and evaluated on; None does it in one process.
    """
    # A run with workers of its own only drives them, with the least that Ray can reserve.
    own = {"num_cpus": cpus, "num_gpus": gpus} if workers is None else {"num_cpus": DRIVING}
    task = ray.remote(max_retries=1, **own)(judge)
    waiting = list(configs.items())
    running: dict[ray.ObjectRef, Path] = {}
    while waiting or running:
        while waiting and len(running) < (concurrent or len(configs)):
            folder, config = waiting.pop(0)
            running[task.remote(config, folder, device=device, threads=cpus, workers=workers)] = folder
        (ended, *_), _ = ray.wait(list(running))
        yield running.pop(ended), ray.get(ended)
