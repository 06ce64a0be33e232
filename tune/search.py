"""Search for a better configuration: Ray Tune with Optuna, recorded in MLflow, with a verdict on the test classes.

Examples:
    python tune/search.py --dataset digits
    python tune/search.py --dataset cub --data-root ~/data --trials 40 --gpus-per-trial 0.25
    python tune/search.py --dataset sop --workers-per-trial 4 --gpus-per-trial 1 --storage s3://bucket/searches
    python tune/search.py --dataset digits --objective r1,ars --sampler nsga2 --groups margins learning-rate
    python tune/search.py --resume digits-20261123-120000
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError
from rich.console import Console

from colotride.cli.options import base_config, device_of, parse, run
from colotride.config import RunConfig
from colotride.data.settings import absolute_root
from colotride.data.splits import load_splits
from colotride.distributed.ray_cluster import machines, start_ray
from colotride.errors import SearchError
from colotride.presets import with_data_root
from colotride.tracking.export import Tracker, default_uri
from colotride.tracking.searches import SearchRecord
from colotride.tune.build import build_space
from colotride.tune.conclusion import conclude, draw, interrupted, result_of
from colotride.tune.display import Display
from colotride.tune.engine import Resources, capacity, run_search
from colotride.tune.final import give_verdict, register_winner
from colotride.tune.memory import Memory
from colotride.tune.objective import TrialResources
from colotride.tune.plan import Plan, Sampler, Stopping, load_plan, objectives_of, save_plan
from colotride.tune.session import Session
from colotride.tune.starts import start_points
from colotride.tune.trials import best_first

TRIALS = 16
"""Configurations that a search tries unless told otherwise."""


@dataclass(frozen=True)
class Search:
    """Search over attention factor, top-ranked coefficient, early disabling and PGD schedule."""

    run: RunConfig
    dataset: str = "digits"
    """Data set whose preset the trials vary: digits, fashion-mnist, cub, cars or sop."""
    config: Path | None = None
    """Vary the run of this YAML file instead."""
    defense: str | None = None
    """Replace the defense by another one with its defaults."""
    data_root: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data sets (default: $COLOTRIDE_DATA, or the configuration's)."""
    trials: int | None = None
    """Configurations to try, the first ones included (default: 16; of a resumed search, as many as before)."""
    groups: tuple[str, ...] = ()
    """Search more: margins, learning-rate, weighting, ...; a wrong name lists them all."""
    space: Path | None = None
    """YAML file that narrows, replaces, fixes, removes or adds parameters; docs/search.md shows its form."""
    start_from: tuple[Path, ...] = ()
    """Try these first, after the default: a search's folder (its best), a run's folder or a YAML configuration."""
    objective: str = "ars"
    """What to maximise on held-out training classes: ars, ers, r1, map, or several for a Pareto front (r1,ars)."""
    sampler: Sampler = "tpe"
    """tpe (multivariate, constant liar), gp (Gaussian process), nsga2 (for several objectives) or random."""
    stopping: Stopping | None = None
    """End bad trials early: asha (default for one objective), median, or none (several objectives)."""
    max_cost: float | None = None
    """End a trial after so many millions of image passes, so that configurations are compared at equal cost."""
    max_epochs: int | None = None
    """Begin no new trial once all of them together have trained so many epochs."""
    first_share: float = 0.5
    """Share of the validation's queries and PGD steps in the first epoch, growing to all of them in the last one;
    1 with --max-cost."""
    seed: int = 0
    """Of the sampler; --run.seed is the one of the trials."""
    name: str | None = None
    """Name of the search and of its folder (default: <data set>-<date>)."""
    results: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/search")
    """Folder above the search's own."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Go on with a search that was interrupted or killed, from where it was; what decides its numbers is as before."""
    concurrent: int | None = None
    """Trials at once (default: as many as the machines hold)."""
    cpus_per_trial: int = 1
    """Processor cores of one trial, or of each of its workers."""
    gpus_per_trial: float = 0.0
    """GPUs of one trial, or of each of its workers; 0.25 packs four trials onto one."""
    workers_per_trial: int = 1
    """Train each trial with so many of Ray's workers."""
    storage: str | None = None
    """Keep second copies of the trials' checkpoints there: s3://..., gs://...; needed where machines share no disk."""
    device: str = "auto"
    """Device inside a trial: auto (a GPU where the trial has one), cpu, cuda."""
    verdict: bool = True
    """Retrain the best and the default on all training classes and evaluate them on the test classes."""
    top: int = 1
    """How many of the best configurations the verdict judges."""
    verdict_seeds: int = 3
    """Seeds per configuration of the verdict."""
    tracking_uri: str | None = None
    """MLflow store (default: $MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)."""
    json: bool = False
    """Print the result as JSON on standard output."""


def main(arguments: Sequence[str]) -> int:
    """Search as the arguments say; 130 when it was interrupted."""
    command = parse(Search, arguments, Search(run=base_config(arguments, preset_option="--dataset")))
    session = prepare(command)
    plan, folder = session.plan, session.folder
    save_plan(plan, folder)
    memory = Memory(folder, plan)
    tracker = Tracker(command.tracking_uri or default_uri(), folder)
    record = SearchRecord(tracker, folder.name, plan)
    try:
        with Display(session.console, plan, memory.rows()) as display:
            run_search(memory, folder, session.resources, session.at_once, session.place, [display, record])
        if not memory.complete:
            record.pause()
            return interrupted(session, memory.rows())
        ranked = best_first(memory.rows(), plan.objectives)
        finalists = give_verdict(session, ranked, command.top, command.verdict_seeds, record) if command.verdict else []
        artifacts = draw(session, memory, ranked, finalists)
        model = register_winner(session, finalists, record)
    except KeyboardInterrupt:
        record.pause()
        return interrupted(session, memory.rows())
    except BaseException:
        record.close({}, [], folder, failed=True)
        raise
    record.close(ranked[0].scores, artifacts, folder)
    if command.json:
        print(json.dumps(result_of(session, ranked, finalists)))
    else:
        conclude(session, memory.rows(), ranked, finalists, tracker.uri, model)
    return 0


def prepare(command: Search) -> Session:
    """Check all that can be checked before anything is written, and start Ray.

    Raises:
        SearchError: an option that makes no sense, a name that is taken, a search to resume that does not exist, more
            than the machines can hold, or a default outside the space.
        DataError: the data set is missing or unusable.
    """
    for option, number in (
        ("--trials", command.trials),
        ("--top", command.top),
        ("--verdict-seeds", command.verdict_seeds),
    ):
        if number is not None and number < 1:
            raise SearchError(f"{option} {number} is too few; give 1 or more")
    plan, folder = _resumed(command) if command.resume is not None else _new(command)
    load_splits(plan.base.data)
    if command.device != "auto":
        device_of(command.device)
    resources = Resources(command.cpus_per_trial, command.gpus_per_trial, command.concurrent, command.workers_per_trial)
    start_ray()
    at_once = capacity(resources, machines())
    device = command.device if command.gpus_per_trial > 0 or command.device != "auto" else "cpu"
    storage = None if command.storage is None else f"{command.storage.rstrip('/')}/{folder.name}/trials"
    place = TrialResources((folder / "trials").absolute(), device, command.cpus_per_trial, resources.workers, storage)
    return Session(plan, folder, resources, at_once, place, Console(stderr=command.json))


def _new(command: Search) -> tuple[Plan, Path]:
    share = 1.0 if command.max_cost is not None else command.first_share
    base = with_data_root(command.run, command.data_root).with_values(
        {"data.hold_out_validation": True, "validation.first_share": share}
    )
    # Ray's workers have other working directories.
    base = base.with_values({"data.root": absolute_root(base.data.root)})
    folder = command.results / (command.name or time.strftime(f"{base.data.name}-%Y%m%d-%H%M%S"))
    if folder.exists():
        raise SearchError(
            f"search {folder} exists already; choose another --name, or go on with it: --resume {folder.name}"
        )
    objectives = objectives_of(command.objective)
    space = build_space(base, groups=command.groups, file=command.space)
    try:
        plan = Plan(
            base=base,
            space=space,
            first=tuple(start_points(space, base, command.start_from)),
            trials=command.trials or TRIALS,
            objectives=objectives,
            sampler=command.sampler,
            stopping=command.stopping or ("asha" if len(objectives) == 1 else "none"),
            seed=command.seed,
            max_cost=command.max_cost,
            max_epochs=command.max_epochs,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "--" + ".".join(map(str, first["loc"])).replace("_", "-") if first["loc"] else "the search"
        raise SearchError(f"{name}: {first['msg'].removeprefix('Value error, ')}; see --help") from None
    return plan, folder


def _resumed(command: Search) -> tuple[Plan, Path]:
    folder = command.results / str(command.resume)
    plan = load_plan(folder)
    if command.trials is not None:
        plan = plan.model_copy(update={"trials": command.trials})
    if command.data_root is not None:
        base = with_data_root(plan.base, command.data_root)
        plan = plan.model_copy(update={"base": base.with_values({"data.root": absolute_root(base.data.root)})})
    return plan, folder


if __name__ == "__main__":
    run(main)
