"""Ray Tune, set up for a search: resources that exist, trials in their own processes, nothing printed but ours."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from colotride.distributed.ray_train import Workers
from colotride.errors import SearchError
from colotride.tune.callbacks import TrialCallback
from colotride.tune.memory import Memory
from colotride.tune.objective import TrialResources, run_trial
from colotride.tune.plan import Plan
from colotride.tune.searcher import MemoryScheduler, MemorySearcher, Observer
from colotride.tune.verdict import DRIVING

RETRIES = 2
"""How often a trial is started again from its checkpoint after its process or machine was lost."""


@dataclass(frozen=True)
class Resources:
    """What one trial needs, and how many run at once."""

    cpus_per_trial: int
    """Of each worker, where a trial has several."""
    gpus_per_trial: float
    """A part of a GPU packs several trials onto one. Of each worker, where a trial has several."""
    concurrent: int | None
    """At most so many at once; None for as many as fit."""
    workers_per_trial: int = 1

    @property
    def workers(self) -> Workers | None:
        """Of each trial; None where it trains in its own process."""
        if self.workers_per_trial == 1:
            return None
        return Workers(self.workers_per_trial, self.workers_per_trial, self.gpus_per_trial > 0, self.cpus_per_trial)

    def needs(self, *, alone: bool = False) -> dict[str, float]:
        """Of a trial's own process, by Ray's names; whole GPUs for one that must be alone on them."""
        if self.workers_per_trial > 1:
            return {"CPU": DRIVING}
        gpus = float(math.ceil(self.gpus_per_trial)) if alone else self.gpus_per_trial
        return {"CPU": float(self.cpus_per_trial), "GPU": gpus}


def capacity(resources: Resources, offered: Sequence[Mapping[str, float]]) -> int:
    """How many trials fit at once.

    A trial with workers of its own counts with all of them and with what drives it, so that no two trials ever wait
    for each other's workers.

    Args:
        resources: of one trial.
        offered: by machine; see `machines`.

    Raises:
        SearchError: not even one, or a request that makes no sense.
    """
    if resources.concurrent is not None and resources.concurrent < 1:
        raise SearchError(f"--concurrent {resources.concurrent} runs no trial; give 1 or more")
    if resources.workers_per_trial < 1:
        raise SearchError(f"--workers-per-trial {resources.workers_per_trial} trains nothing; give 1 or more")
    if resources.cpus_per_trial < 1:
        raise SearchError(f"--cpus-per-trial {resources.cpus_per_trial} is too few; give 1 or more")
    if not 0 <= resources.gpus_per_trial < math.inf:
        raise SearchError(f"--gpus-per-trial {resources.gpus_per_trial:g} is no number of GPUs; give 0 or more")
    if resources.workers_per_trial > 1 and resources.gpus_per_trial not in (0, 1):
        raise SearchError(
            f"--gpus-per-trial {resources.gpus_per_trial:g} with several workers per trial: each has no GPU or one; "
            "give 0 or 1"
        )
    for kind, count in (("CPU", float(resources.cpus_per_trial)), ("GPU", resources.gpus_per_trial)):
        most = max((machine.get(kind, 0.0) for machine in offered), default=0.0)
        if count > most:
            raise SearchError(
                f"--{kind.lower()}s-per-trial {count:g} is more than any machine here has ({most:g}); ask for less"
            )
    if resources.workers is None:
        places = sum(_places(machine, resources) for machine in offered)
    else:
        # One process that drives each trial stands beside its workers and takes the last whole core of a machine.
        spare = [{**machine, "CPU": machine.get("CPU", 0.0) - DRIVING} for machine in offered]
        places = sum(map(resources.workers.room, spare)) // resources.workers_per_trial
        if places < 1:
            raise SearchError(
                f"--workers-per-trial {resources.workers_per_trial} with {resources.cpus_per_trial} CPUs each and "
                f"{DRIVING:g} CPU that drives them do not fit on the machines here; ask for fewer"
            )
    return min(places, resources.concurrent or places)


def _places(machine: Mapping[str, float], resources: Resources) -> int:
    counts = [math.floor(machine.get("CPU", 0.0) / resources.cpus_per_trial)]
    if resources.gpus_per_trial > 0:
        gpus, each = machine.get("GPU", 0.0), resources.gpus_per_trial
        # Part of a GPU is on one GPU: three times 0.4 do not fit on one, though the sum over two would hold five.
        counts.append(math.floor(gpus / each) if each >= 1 else int(gpus) * math.floor(1 / each + 1e-9))
    return min(counts)


def run_search(
    memory: Memory,
    folder: Path,
    resources: Resources,
    at_once: int,
    place: TrialResources,
    callbacks: Sequence[TrialCallback],
    trial: Callable[..., None] = run_trial,
) -> None:
    """Run the trials of a search that have not ended; Ctrl-C ends it early, and nothing is lost.

    Args:
        memory: of the search.
        folder: of the search.
        resources: of one trial.
        at_once: how many trials; see `capacity`.
        place: where trials train.
        callbacks: told of every trial.
        trial: what each does, in its own process; see `run_trial`.
    """
    plan: Plan = memory.plan

    def trainable(given: dict[str, Any]) -> None:
        trial(given, plan=plan, place=place)

    tuner = tune.Tuner(
        tune.with_resources(
            trainable, lambda given: tune.PlacementGroupFactory([resources.needs(alone=given["alone"])])
        ),
        tune_config=tune.TuneConfig(
            search_alg=MemorySearcher(memory, can_be_alone=0 < resources.gpus_per_trial < 1),
            scheduler=MemoryScheduler(memory),
            num_samples=-1,
            max_concurrent_trials=at_once,
            # A process that has imported torch trains the next trial too.
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str((folder / "ray").absolute()),
            callbacks=[Observer(memory, list(callbacks))],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )
    tuner.fit()
