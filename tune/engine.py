"""Ray Tune, set up for a search: resources that exist, trials in their own processes, nothing printed but ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter

from colotride.config import RunConfig
from colotride.errors import SearchError
from tune.objective import OBJECTIVE, run_trial
from tune.observer import Observer, TrialRow
from tune.searcher import build_searcher
from tune.space import Space, Values


@dataclass(frozen=True)
class Resources:
    """What one trial needs, and how many run at once."""

    cpus_per_trial: int
    gpus_per_trial: float
    concurrent: int | None
    """At most so many at once; None for as many as fit."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides a search."""

    base: RunConfig
    """The run that the trials vary, with its validation part held out."""
    space: Space
    first: list[Values]
    """Configurations to try before the sampler takes over."""
    trials: int
    seed: int
    """Of the sampler."""
    device: str
    resources: Resources


def check_resources(resources: Resources, offered: Sequence[Mapping[str, float]]) -> None:
    """Refuse what no machine can ever hold; Ray would wait for it without end.

    Args:
        resources: asked for.
        offered: by machine; see `machines`.

    Raises:
        SearchError: more CPUs or GPUs for one trial than any machine has, or no trial at all.
    """
    if resources.concurrent is not None and resources.concurrent < 1:
        raise SearchError(f"--concurrent {resources.concurrent} runs no trial; give 1 or more")
    if resources.cpus_per_trial < 1:
        raise SearchError(f"--cpus-per-trial {resources.cpus_per_trial} is too few; give 1 or more")
    for kind, count in (("CPU", float(resources.cpus_per_trial)), ("GPU", resources.gpus_per_trial)):
        most = max((machine.get(kind, 0.0) for machine in offered), default=0.0)
        if count > most:
            option = f"--{kind.lower()}s-per-trial"
            raise SearchError(f"{option} {count:g} is more than any machine here has ({most:g}); ask for less")


def run_search(plan: Plan, folder: Path, observer: Observer) -> None:
    """Run all trials; the observer hears of each, the Optuna study is kept in the folder.

    Args:
        plan: what to search.
        folder: of the search; holds one folder per trial and `optuna.journal`.
        observer: a Tune callback.
    """
    epochs, resources = plan.base.optimisation.epochs, plan.resources
    base, space, device, threads = plan.base, plan.space, plan.device, resources.cpus_per_trial

    def trainable(values: dict[str, Any]) -> None:
        run_trial(values, base=base, space=space, threads=threads, device=device)

    searcher = build_searcher(
        plan.space, plan.first, metric=OBJECTIVE, journal=folder / "optuna.journal", seed=plan.seed
    )
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric=OBJECTIVE,
        mode="max",
        max_t=epochs,
        grace_period=max(1, epochs // 3),
        reduction_factor=3,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher, resources.concurrent) if resources.concurrent else searcher,
            scheduler=scheduler,
            num_samples=plan.trials,
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=folder.name, storage_path=str(folder.parent.absolute()), callbacks=[observer], verbose=0
        ),
    )
    tuner.fit()


def best_of(rows: Sequence[TrialRow]) -> TrialRow:
    """The row of the best trial that reached its last epoch.

    Raises:
        SearchError: no trial did; the message says what became of them.
    """
    finished = [row for row in rows if row.status == "finished"]
    if not finished:
        ends = ", ".join(sorted({f"{row.status} ({row.reason})" if row.reason else row.status for row in rows}))
        raise SearchError(f"none of the {len(rows)} trials reached its last epoch: {ends or 'none was started'}")
    return max(finished, key=lambda row: row.scores[OBJECTIVE])
