"""Runs side by side on Ray that are no trials: retrained with further seeds, and evaluated on the test classes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from colotride.distributed.drain import DrainNotice
from colotride.distributed.launch import evaluation_executor, prepare_training
from colotride.distributed.ray_cluster import result_of
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation, load_evaluation, save_evaluation
from colotride.training.records import EpochRecord, Outcome
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.runs import load_run
from colotride.tune.ray_tune import RETRIES
from colotride.tune.records import CostLimit
from colotride.tune.resources import SearchFolders, TrialResources

Result = TypeVar("Result")

Limits = CostLimit | Mapping[Path, CostLimit] | None
"""Of what trainings may cost: one for all, or by the folder of the run."""

Given = tuple[RunConfig, Path, TrialResources, CostLimit | None, CheckpointPolicy]

Work = Callable[[RunConfig, Path, TrialResources, CostLimit | None, CheckpointPolicy], Result]
"""Trains one run: its configuration, its folder, what it gets, what it may cost, and how its checkpoints are kept."""


@dataclass(frozen=True)
class FinalRun:
    """One configuration retrained with one seed: its training and its scores on the test side."""

    status: str
    reason: str
    history: list[EpochRecord]
    evaluation: Evaluation | None
    """None where training ended in NaN or diverged; a collapsed model is evaluated as it is."""


def train_and_evaluate(
    config: RunConfig,
    directory: Path,
    resources: TrialResources,
    limit: CostLimit | None = None,
    policy: CheckpointPolicy | None = None,
) -> FinalRun:
    """Train on all training classes, then evaluate on the test classes with every attack.

    Args:
        config: of the run; nothing is held out, whatever it says.
        directory: becomes the run's folder, with the result in `evaluation/`; what it holds already is not repeated.
        resources: of the run.
        limit: of what its training may cost.
        policy: how its checkpoints are kept.
    """
    config = config.with_values({"data.hold_out_validation": False})
    workers, executor = resources.workers, None
    outcome = _train(config, directory, resources, limit, policy)
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
    configs: Mapping[Path, RunConfig],
    resources: TrialResources,
    at_once: int | None = None,
    limits: Limits = None,
    folders: SearchFolders | None = None,
) -> Iterator[tuple[Path, FinalRun]]:
    """Train and evaluate several configurations side by side on Ray, and hand over each as it ends.

    Args:
        configs: by the folder of their run, which must be absolute, because Ray's processes have other working
            directories.
        resources: of one run.
        at_once: the most runs side by side; None for as many as fit.
        limits: of what each training may cost: one for all, or by folder.
        folders: where their checkpoints are kept a second time; None for nowhere.
    """
    return _each(train_and_evaluate, configs, resources, at_once, limits, folders)


def train_each(
    configs: Mapping[Path, RunConfig],
    resources: TrialResources,
    at_once: int | None = None,
    limits: Limits = None,
    folders: SearchFolders | None = None,
) -> Iterator[tuple[Path, Outcome]]:
    """Train several configurations side by side on Ray, and hand over each as it ends; see `train_and_evaluate_each`."""
    return _each(_train, configs, resources, at_once, limits, folders)


def _train(
    config: RunConfig,
    directory: Path,
    resources: TrialResources,
    limit: CostLimit | None = None,
    policy: CheckpointPolicy | None = None,
) -> Outcome:
    torch.set_num_threads(resources.cpus)
    limit = limit or CostLimit(None, 1)
    train = prepare_training(
        config,
        directory,
        device=resources.device,
        workers=resources.workers,
        checkpoint_policy=policy,
        should_save=DrainNotice(),
    )
    outcome = train(on_epoch=limit.add, should_stop=lambda: limit.spent)
    if limit.spent and outcome.status == "interrupted":
        return replace(outcome, status="finished", reason=limit.reason)
    return outcome


def _each(
    work: Work[Result],
    configs: Mapping[Path, RunConfig],
    resources: TrialResources,
    at_once: int | None,
    limits: Limits,
    folders: SearchFolders | None = None,
) -> Iterator[tuple[Path, Result]]:
    waiting = [(folder, config, False) for folder, config in configs.items()]
    running: dict[ray.ObjectRef, tuple[Path, RunConfig, bool]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (at_once or len(configs)):
                folder, config, exclusive = waiting.pop(0)
                request = resources.request(exclusive=exclusive)
                task = ray.remote(
                    num_cpus=request["CPU"],
                    num_gpus=request.get("GPU", 0),
                    memory=request.get("memory"),
                    max_retries=RETRIES,
                )(_capped)
                limit = limits[folder] if isinstance(limits, Mapping) else limits
                policy = CheckpointPolicy() if folders is None else folders.policy(folder)
                given = (config, folder, resources, limit, policy)
                running[task.remote(work, given, exclusive)] = (folder, config, exclusive)
            (ended, *_), _ = ray.wait(list(running))
            folder, config, exclusive = running.pop(ended)
            try:
                result = result_of(ended)
            except torch.OutOfMemoryError:
                if exclusive or not 0 < resources.gpus < 1:
                    raise
                # It may fit on a GPU that it has alone.
                waiting.append((folder, config, True))
                continue
            yield folder, result
    finally:
        # In a notebook Ray outlives an interrupted call, and its tasks would go on beside those of the next one.
        for task in running if ray.is_initialized() else ():
            ray.cancel(task, force=True)


def _capped(work: Work[Result], given: Given, exclusive: bool) -> Result:
    given[2].limit(exclusive=exclusive)
    return work(*given)


def _model_and_images(directory: Path) -> tuple[nn.Module, ImageSet]:
    config, model = load_run(directory)
    return model, load_splits(config.data).test
