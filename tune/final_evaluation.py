"""The verdict: the best configurations and the default, retrained on all training classes and tested.

Seeds are added until every difference from the default is beyond the noise, or the budget of seeds is spent.
"""

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
from colotride.tune.seed_statistics import DEFAULT, SeedStatistics, verdict_sentence

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
    folder: Path
    """Holds the folder of each run."""
    runs: dict[int, FinalRun]
    """By seed."""

    @property
    def statistics(self) -> SeedStatistics:
        """Its scores on the test classes."""
        scores = {seed: {} if one.evaluation is None else one.evaluation.scores() for seed, one in self.runs.items()}
        return SeedStatistics(
            self.name,
            {name: {seed: scores[seed].get(name, 0.0) for seed in sorted(scores)} for name in SHOWN_SCORES},
            tuple(one.status for one in self.runs.values() if one.evaluation is None),
        )

    @property
    def first_evaluation(self) -> Evaluation | None:
        """Of the first seed."""
        return next(iter(self.runs.values())).evaluation

    def run_folder(self, seed: int) -> Path:
        """The folder of one run."""
        return self.folder / f"seed-{seed}"


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
    finalists = [
        Finalist(name, config, (folder / "verdict" / name).absolute(), {})
        for name, config in finalists_of(plan, ranked).items()
    ]
    first = plan.base.seed
    for look in plan.looks:
        missing = [(one, seed) for seed in range(first, first + look) for one in finalists if seed not in one.runs]
        _run_seeds(missing, resources, at_once, mlflow, on_progress)
        if decided(finalists, plan):
            break
    return finalists


def decided(finalists: Sequence[Finalist], plan: SearchPlan) -> bool:
    """Whether further seeds would change nothing: every difference from the default is beyond the noise already."""
    default, *others = (one.statistics for one in finalists)
    score, looks = plan.objectives[0], len(plan.looks)
    return all(
        found is not None and found.beyond_noise for one in others for found in [one.above(default, score, looks)]
    )


def verdict_sentences(plan: SearchPlan, finalists: Sequence[Finalist]) -> list[str]:
    """What the verdict says about each configuration besides the default, in plain sentences."""
    if not finalists:
        return []
    default, *others = (one.statistics for one in finalists)
    return [verdict_sentence(one, default, plan.objectives[0], len(plan.looks)) for one in others]


def _run_seeds(
    missing: Sequence[tuple[Finalist, int]],
    resources: TrialResources,
    at_once: int,
    mlflow: MLflowCallback,
    on_progress: Callable[[str], None],
) -> None:
    places = {one.run_folder(seed): (one, seed) for one, seed in missing}
    configs = {path: one.config.with_values({"seed": seed}) for path, (one, seed) in places.items()}
    names = ", ".join(dict.fromkeys(one.name for one, _ in missing))

    def tell(done: int) -> None:
        on_progress(
            f"Verdict: {names} on all training classes, seeds {', '.join(map(str, sorted({s for _, s in missing})))}, "
            f"then all attacks: {done} of {len(missing)} runs"
        )

    tell(0)
    for done, (path, run) in enumerate(train_and_evaluate_each(configs, resources, at_once), 1):
        one, seed = places[path]
        one.runs[seed] = run
        if run.evaluation is not None:
            mlflow.evaluated(f"{one.name} seed {seed}", configs[path], run.history, run.evaluation)
        tell(done)


def register_winner(finalists: Sequence[Finalist], objective: str, mlflow: MLflowCallback) -> str | None:
    """Register the model of the best configuration, by its mean over the seeds; returns its name in MLflow.

    The model is that of the first seed that could be evaluated, not of the luckiest one.
    """
    for finalist in sorted(finalists, key=lambda one: -one.statistics.mean(objective)):
        for seed in sorted(finalist.runs):
            evaluation = finalist.runs[seed].evaluation
            if evaluation is not None:
                name = f"{finalist.name} seed {seed}"
                return mlflow.register(name, finalist.run_folder(seed), evaluation.scores())
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
