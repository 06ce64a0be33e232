"""The verdict: the best configurations and the default, retrained on all training classes and tested."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from colotride.distributed.launch import evaluation_executor, prepare_training
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation, load_evaluation, save_evaluation
from colotride.training.records import EpochRecord
from colotride.training.runs import load_run
from colotride.tune.callbacks import MLflowCallback
from colotride.tune.plan import SearchPlan
from colotride.tune.records import SHOWN_SCORES, TrialRecord
from colotride.tune.resources import TrialResources
from colotride.tune.seed_statistics import DEFAULT, SeedStatistics

BEST = "best"


@dataclass(frozen=True)
class FinalRun:
    """One configuration retrained with one seed: its training and its scores on the test side."""

    status: str
    reason: str
    history: list[EpochRecord]
    evaluation: Evaluation | None
    """None where training ended in NaN or diverged; a collapsed model is evaluated as it is."""


@dataclass(frozen=True)
class Finalist:
    """One configuration of the final evaluation."""

    name: str
    """default, best, or the number of its trial."""
    config: RunConfig
    """With the first seed."""
    runs: dict[Path, FinalRun]
    """By folder, one per seed."""

    @property
    def statistics(self) -> SeedStatistics:
        """Its scores on the test classes."""
        evaluated = [run.evaluation.scores() for run in self.runs.values() if run.evaluation is not None]
        scores = {name: [one[name] for one in evaluated] for name in SHOWN_SCORES} if evaluated else {}
        return SeedStatistics(
            self.name, scores, tuple(run.status for run in self.runs.values() if run.evaluation is None)
        )

    @property
    def first_evaluation(self) -> Evaluation | None:
        """Of the first seed."""
        return next(iter(self.runs.values())).evaluation


def finalists_of(plan: SearchPlan, ranked: Sequence[TrialRecord]) -> dict[str, RunConfig]:
    """The default and the best configurations by name, to be trained on all training classes.

    Where the default itself is among the best it appears once, as the default.

    Args:
        plan: of the search; says how many of the best there are.
        ranked: finished trials from the best to the worst.
    """
    found = {DEFAULT: plan.base}
    for place, record in enumerate(ranked[: plan.top]):
        if record.number > 1 or plan.space.values_of(plan.base, clip=True) != record.values:
            found[BEST if place == 0 else f"trial-{record.number}"] = record.config
    return {name: config.with_values({"data.hold_out_validation": False}) for name, config in found.items()}


def evaluate_finalists(
    plan: SearchPlan,
    folder: Path,
    ranked: Sequence[TrialRecord],
    resources: TrialResources,
    at_once: int,
    mlflow: MLflowCallback,
    on_progress: Callable[[str], None],
) -> list[Finalist]:
    """Retrain and evaluate. Runs that an interrupted session finished are not repeated.

    Args:
        plan: of the search.
        folder: of the search.
        ranked: finished trials from the best to the worst.
        resources: of one run.
        at_once: runs side by side.
        mlflow: records every run.
        on_progress: called with a line that says how much is done.
    """
    configs = finalists_of(plan, ranked)
    seeds = range(plan.base.seed, plan.base.seed + plan.verdict_seeds)
    folders = {
        (name, seed): (folder / "verdict" / name / f"seed-{seed}").absolute() for name in configs for seed in seeds
    }
    seeded = {folders[name, seed]: configs[name].with_values({"seed": seed}) for name, seed in folders}
    names = {path: f"{name} seed {seed}" for (name, seed), path in folders.items()}
    runs: dict[Path, FinalRun] = {}

    def tell() -> None:
        on_progress(
            f"Verdict: {', '.join(configs)} on all training classes with {plan.verdict_seeds} seeds, then all attacks: "
            f"{len(runs)} of {len(seeded)}"
        )

    tell()
    for path, run in train_and_evaluate_each(seeded, resources, at_once):
        runs[path] = run
        if run.evaluation is not None:
            mlflow.evaluated(names[path], seeded[path], run.history, run.evaluation)
        tell()
    return [
        Finalist(name, config, {folders[name, seed]: runs[folders[name, seed]] for seed in seeds})
        for name, config in configs.items()
    ]


def register_winner(finalists: Sequence[Finalist], objective: str, mlflow: MLflowCallback) -> str | None:
    """Register the model of the best configuration, by its mean over the seeds; returns its name in MLflow.

    The model is that of the first seed that could be evaluated, not of the luckiest one.
    """
    for finalist in sorted(finalists, key=lambda one: -one.statistics.mean(objective)):
        for folder, run in finalist.runs.items():
            if run.evaluation is not None:
                seed = folder.name.removeprefix("seed-")
                return mlflow.register(f"{finalist.name} seed {seed}", folder, run.evaluation.scores())
    return None


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
    request = resources.request()
    task = ray.remote(num_cpus=request["CPU"], num_gpus=request.get("GPU", 0), max_retries=1)(train_and_evaluate)
    waiting = list(configs.items())
    running: dict[ray.ObjectRef, Path] = {}
    while waiting or running:
        while waiting and len(running) < (at_once or len(configs)):
            folder, config = waiting.pop(0)
            running[task.remote(config, folder, resources)] = folder
        (ended, *_), _ = ray.wait(list(running))
        yield running.pop(ended), ray.get(ended)


def _model_and_images(directory: Path) -> tuple[nn.Module, ImageSet]:
    config, model = load_run(directory)
    return model, load_splits(config.data).test
