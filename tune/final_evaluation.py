"""The verdict: the best configurations and the default, retrained on all training classes and tested.

Seeds are added until every difference from the default is beyond the noise, or the budget of seeds is spent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.evaluation.results import Evaluation
from colotride.settings import number_range
from colotride.training.remote_copy import RemoteCopy
from colotride.tune.callbacks import MLflowCallback
from colotride.tune.final_runs import FinalRun, train_and_evaluate_each
from colotride.tune.plan import SearchPlan, load_plan
from colotride.tune.records import SHOWN_SCORES, TrialRecord
from colotride.tune.resources import SearchFolders, TrialResources
from colotride.tune.seed_statistics import DEFAULT, SeedStatistics, verdict_sentence

BEST = "best"

VERDICT = "verdict"
"""Folder of the verdict's runs, in the search's own."""


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
        return self.runs[min(self.runs)].evaluation

    def run_folder(self, seed: int) -> Path:
        """The folder of one run."""
        return self.folder / f"seed-{seed}"

    def key(self, seed: int) -> str:
        """Of one run in MLflow: its configuration, which "best" alone is not when a search goes on, and its seed."""
        return f"{self.folder.name}/seed-{seed}"


def finalists_of(plan: SearchPlan, ranked: Sequence[TrialRecord]) -> dict[str, RunConfig]:
    """The default and the best configurations by name, to be trained on all training classes.

    Where the default itself is among the best it appears once, as the default.

    Args:
        plan: of the search; says how many of the best there are.
        ranked: finished trials from the best to the worst.
    """
    found = {DEFAULT: plan.base}
    for place, record in enumerate(ranked[: plan.top]):
        if record.number > 1 or not alike(record.config.model_dump(), plan.base.model_dump()):
            found[BEST if place == 0 else f"trial-{record.number}"] = record.config
    return {name: config.with_values({"data.hold_out_validation": False}) for name, config in found.items()}


def alike(one: Any, other: Any) -> bool:
    """Whether two configurations, as plain values, are the same up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def check_verdict_seeds(plan: SearchPlan, folder: Path) -> None:
    """Refuse other seeds in a search whose verdict has begun: an interval that was seen cannot be looked at more often.

    Raises:
        SearchError: they differ.
    """
    former = load_plan(folder).verdict_seeds
    # One seed has no interval.
    if number_range(former)[1] == 1:
        return
    if former != plan.verdict_seeds and (folder / VERDICT).is_dir():
        raise SearchError(
            f"--verdict-seeds cannot change from {former} to {plan.verdict_seeds} in a search whose verdict has begun, "
            "because its intervals count the looks; leave it out"
        )


def evaluate_finalists(
    plan: SearchPlan,
    folders: SearchFolders,
    ranked: Sequence[TrialRecord],
    resources: TrialResources,
    at_once: int,
    mlflow: MLflowCallback,
    on_progress: Callable[[str], None],
) -> list[Finalist]:
    """Retrain and evaluate. Runs that an interrupted session finished are not repeated.

    Args:
        plan: of the search.
        folders: of the search.
        ranked: finished trials from the best to the worst.
        resources: of one run.
        at_once: runs side by side.
        mlflow: records every run.
        on_progress: called with a line that says how much is done.
    """
    finalists = [
        # By its trial, because another one may be the best when the search goes on.
        Finalist(name, config, folders.root / VERDICT / (f"trial-{ranked[0].number}" if name == BEST else name), {})
        for name, config in finalists_of(plan, ranked).items()
    ]
    first = plan.base.seed
    for look in plan.looks:
        missing = [(one, seed) for seed in range(first, first + look) for one in finalists if seed not in one.runs]
        _run_seeds(plan, missing, resources, at_once, mlflow, on_progress, folders)
        if decided(finalists, plan):
            break
    return finalists


def decided(finalists: Sequence[Finalist], plan: SearchPlan) -> bool:
    """Whether further seeds would change nothing: every difference from the default is beyond the noise already."""
    default, *others = (one.statistics for one in finalists)
    return all(
        found is not None and found.beyond_noise
        for one in others
        for score in plan.objectives
        for found in [one.above(default, score, plan.comparisons)]
    )


def verdict_sentences(plan: SearchPlan, finalists: Sequence[Finalist]) -> list[str]:
    """What the verdict says about each configuration besides the default, in plain sentences."""
    if not finalists:
        return []
    default, *others = (one.statistics for one in finalists)
    return [verdict_sentence(one, default, plan.objectives, plan.comparisons) for one in others]


def _run_seeds(
    plan: SearchPlan,
    missing: Sequence[tuple[Finalist, int]],
    resources: TrialResources,
    at_once: int,
    mlflow: MLflowCallback,
    on_progress: Callable[[str], None],
    folders: SearchFolders,
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
    runs = train_and_evaluate_each(configs, resources, at_once, plan.cost_limit(), folders)
    for done, (path, run) in enumerate(runs, 1):
        one, seed = places[path]
        one.runs[seed] = run
        if run.evaluation is not None:
            mlflow.evaluated(one.key(seed), f"{one.name} seed {seed}", configs[path], run.history, run.evaluation)
        tell(done)


def register_winner(
    finalists: Sequence[Finalist],
    objectives: Sequence[str],
    mlflow: MLflowCallback,
    folders: SearchFolders,
) -> str | None:
    """Register the model of the best configuration, by its mean over the seeds; returns its name in MLflow.

    With several objectives it is the search's best one, which stands for a trade-off; one of them alone would choose
    the default. The model is that of the first seed that could be evaluated, not of the luckiest one.
    """
    if len(objectives) == 1:
        ordered = sorted(finalists, key=lambda one: -one.statistics.mean(objectives[0]))
    else:
        ordered = [*finalists[1:], *finalists[:1]]
    for finalist in ordered:
        for seed in sorted(finalist.runs):
            evaluation, folder = finalist.runs[seed].evaluation, finalist.run_folder(seed)
            if evaluation is None:
                continue
            storage = folders.policy(folder).storage
            if storage is not None:
                # It may have been trained on a machine whose disk is not this one.
                RemoteCopy(storage).pull(folder)
            return mlflow.register(finalist.key(seed), f"{finalist.name} seed {seed}", folder, evaluation.scores())
    return None
