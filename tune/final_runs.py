"""Runs side by side on Ray that are no trials: retrained with further seeds, and evaluated on the test classes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import ray
import torch
from torch import nn

from colotride.config import RunConfig
from colotride.data.base import ImageSet
from colotride.data.splits import load_splits
from colotride.devices import device_of
from colotride.distributed.launch import evaluation_executor, prepare_training
from colotride.distributed.ray_cluster import result_of
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation, load_evaluation, save_evaluation
from colotride.training.records import EpochRecord, Outcome
from colotride.training.runs import load_run
from colotride.tune.resources import TrialResources

Result = TypeVar("Result")


@dataclass(frozen=True)
class FinalRun:
    """One configuration retrained with one seed: its training and its scores on the test side."""

    status: str
    reason: str
    history: list[EpochRecord]
    evaluation: Evaluation | None
    """None where training ended in NaN or diverged; a collapsed model is evaluated as it is."""


def train_and_evaluate(config: RunConfig, directory: Path, resources: TrialResources) -> FinalRun:
    """Train on all training classes, then evaluate on the test classes with every attack.

    Args:
        config: of the run; nothing is held out, whatever it says.
        directory: becomes the run's folder, with the result in `evaluation/`; what it holds already is not repeated.
        resources: of the run.
    """
    torch.set_num_threads(resources.cpus)
    config = config.with_values({"data.hold_out_validation": False})
    workers, executor = resources.workers, None
    outcome = prepare_training(config, directory, device=resources.device, workers=workers)()
    if workers is not None:
        load = partial(_model_and_images, directory)
        executor = evaluation_executor(load, workers.most, gpus=float(workers.gpu), cpus=workers.cpus)
    device = torch.device("cpu") if workers is not None else device_of(resources.device)
    known = directory / "evaluation"
    if (known / "evaluation.json").is_file():
        return FinalRun(outcome.status, outcome.reason, outcome.history, load_evaluation(known))
    if outcome.status in ("nan", "diverged"):
        return FinalRun(outcome.status, outcome.reason, outcome.history, None)
    model, images = _model_and_images(directory)
    result = evaluate(
        model.to(device),
        images,
        config.evaluation,
        image_size=config.data.image_size,
        seed=config.seed,
        device=device,
        executor=executor,
    )
    save_evaluation(result, known)
    return FinalRun(outcome.status, outcome.reason, outcome.history, result)


def train_and_evaluate_each(
    configs: Mapping[Path, RunConfig], resources: TrialResources, at_once: int | None = None
) -> Iterator[tuple[Path, FinalRun]]:
    """Train and evaluate several configurations side by side on Ray, and hand over each as it ends.

    Args:
        configs: by the folder of their run, which must be absolute, because Ray's processes have other working
            directories.
        resources: of one run.
        at_once: the most runs side by side; None for as many as fit.
    """
    return _each(train_and_evaluate, configs, resources, at_once)


def train_each(
    configs: Mapping[Path, RunConfig], resources: TrialResources, at_once: int | None = None
) -> Iterator[tuple[Path, Outcome]]:
    """Train several configurations side by side on Ray, and hand over each as it ends; see `train_and_evaluate_each`."""
    return _each(_train, configs, resources, at_once)


def _train(config: RunConfig, directory: Path, resources: TrialResources) -> Outcome:
    torch.set_num_threads(resources.cpus)
    return prepare_training(config, directory, device=resources.device, workers=resources.workers)()


def _each(
    work: Callable[[RunConfig, Path, TrialResources], Result],
    configs: Mapping[Path, RunConfig],
    resources: TrialResources,
    at_once: int | None,
) -> Iterator[tuple[Path, Result]]:
    request = resources.request()
    task = ray.remote(num_cpus=request["CPU"], num_gpus=request.get("GPU", 0), max_retries=1)(work)
    waiting = list(configs.items())
    running: dict[ray.ObjectRef, Path] = {}
    while waiting or running:
        while waiting and len(running) < (at_once or len(configs)):
            folder, config = waiting.pop(0)
            running[task.remote(config, folder, resources)] = folder
        (ended, *_), _ = ray.wait(list(running))
        yield running.pop(ended), result_of(ended)


def _model_and_images(directory: Path) -> tuple[nn.Module, ImageSet]:
    config, model = load_run(directory)
    return model, load_splits(config.data).test
