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
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from colotride.cli.configuration import run_config
from colotride.cli.options.search import Search
from colotride.data.settings import absolute_root
from colotride.data.splits import load_splits
from colotride.devices import device_of
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
from colotride.tune.plan import Plan, load_plan, objectives_of, save_plan
from colotride.tune.session import Session
from colotride.tune.starts import start_points
from colotride.tune.trials import best_first

TRIALS = 16
"""Configurations that a search tries unless told otherwise."""


def main(command: Search) -> int:
    """Search as the arguments say; 130 when it was interrupted."""
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
    if command.as_json:
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
    return Session(plan, folder, resources, at_once, place, Console(stderr=command.as_json))


def _new(command: Search) -> tuple[Plan, Path]:
    share = 1.0 if command.max_cost is not None else command.first_share
    base = run_config(command).with_values({"data.hold_out_validation": True, "validation.first_share": share})
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
    from colotride.cli.main import run

    run("search")
