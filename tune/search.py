"""Search for a better configuration: Ray Tune with Optuna, recorded in MLflow, with a verdict on the test classes.

Examples:
    python tune/search.py --dataset digits
    python tune/search.py --dataset cub --data-root ~/data --trials 40 --gpus-per-trial 1
    python tune/search.py --dataset digits --trials 4 --run.optimisation.epochs 3 --no-verdict
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from colotride.atomic import write_atomically
from colotride.command_line import base_config, device_of, parse, run
from colotride.config import RunConfig, save_config
from colotride.data.splits import load_splits
from colotride.distributed import machines, start_ray
from colotride.errors import SearchError
from colotride.evaluation.table import table_of
from colotride.presets import with_data_root
from colotride.tracking import DEFAULT_URI, Tracker, absolute, default_uri
from tune.display import Display, trial_table, value_text
from tune.engine import Plan, Resources, best_of, check_resources, run_search
from tune.objective import OBJECTIVE
from tune.observer import Observer, TrialRow
from tune.picture import draw_search
from tune.record import SearchRecord
from tune.space import Space, default_space
from tune.verdict import Judged, judge_all


@dataclass(frozen=True)
class Search:
    """Search over attention factor, top-ranked coefficient, early disabling and PGD schedule."""

    run: RunConfig
    dataset: str = "digits"
    """Data set whose preset the trials vary: digits, fashion-mnist, cub, cars or sop."""
    config: Path | None = None
    """Vary the run of this YAML file instead."""
    defense: str | None = None
    """Replace the defense by another one with its defaults; the space must fit it."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data sets (default: $COLOTRIDE_DATA, or the configuration's)."""
    trials: int = 16
    """Configurations to try; the first is the default one."""
    name: str | None = None
    """Name of the search and of its folder (default: <data set>-<date>)."""
    results: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/search")
    """Folder above the search's own."""
    seed: int = 0
    """Of the sampler; --run.seed is the one of the trials."""
    concurrent: int | None = None
    """Trials at once (default: as many as the machine holds)."""
    cpus_per_trial: int = 1
    """Processor cores of one trial."""
    gpus_per_trial: float = 0.0
    """GPUs of one trial; 0.25 packs four onto one."""
    device: str = "auto"
    """Device inside a trial: auto (a GPU where the trial has one), cpu, cuda."""
    verdict: bool = True
    """Retrain the best and the default on all training classes and evaluate both on the test classes."""
    tracking_uri: str | None = None
    """MLflow store (default: $MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)."""
    json: bool = False
    """Print the result as JSON on standard output."""


def main(arguments: Sequence[str]) -> int:
    """Search as the arguments say."""
    command = parse(Search, arguments, Search(run=base_config(arguments, preset_option="--dataset")))
    console = Console(stderr=command.json)
    plan, folder = prepare(command)
    tracker = Tracker(command.tracking_uri or default_uri())
    start_ray()
    check_resources(plan.resources, machines())
    folder.mkdir(parents=True)
    record = SearchRecord(tracker, folder.name, plan.base, plan.space, plan.trials)
    try:
        rows, best = explore(plan, folder, record, console)
        configs = {"default": plan.base, "best": plan.space.configure(plan.base, best.values)}
        for name, config in configs.items():
            save_config(config.with_values({"data.hold_out_validation": False}), folder / f"{name}.yaml")
        judged = give_verdict(plan, configs, folder, record, console) if command.verdict else {}
    except BaseException:
        record.close({}, [], failed=True)
        raise
    evaluations = {name: one.evaluation for name, one in judged.items() if one.evaluation is not None}
    picture = folder / "search.png"
    draw_search(rows, evaluations, picture, f"{folder.name}: {len(rows)} trials on {plan.base.data.name}")
    record.close(best.scores, [folder / "best.yaml", folder / "trials.json", picture])
    if command.json:
        print(json.dumps(result_of(folder, best, judged)))
    else:
        conclude(console, plan.space, folder, rows, best, judged, tracker.uri)
    return 0


def explore(plan: Plan, folder: Path, record: SearchRecord, console: Console) -> tuple[list[TrialRow], TrialRow]:
    """Run all trials with a display; returns their rows and the best one.

    Raises:
        SearchError: no trial reached its last epoch.
    """
    display = Display(console, plan.space, plan.trials, plan.base.optimisation.epochs, OBJECTIVE)
    observer = Observer([display, record], OBJECTIVE)
    with display:
        run_search(plan, folder, observer)
    rows = list(observer.rows.values())
    save_trials(rows, folder / "trials.json")
    return rows, best_of(rows)


def prepare(command: Search) -> tuple[Plan, Path]:
    """Check all that can be checked before anything is started.

    Raises:
        SearchError: too few trials, a name that is taken, or a default that lies outside the space.
        DataError: the data set is missing or unusable.
    """
    if command.trials < 1:
        raise SearchError(f"--trials {command.trials} tries nothing; give 1 or more")
    base = with_data_root(command.run, command.data_root).with_values({"data.hold_out_validation": True})
    # Ray's workers have other working directories.
    base = base.with_values({"data.root": base.data.root.absolute()})
    load_splits(base.data)
    if command.device != "auto":
        device_of(command.device)
    folder = command.results / (command.name or time.strftime(f"{base.data.name}-%Y%m%d-%H%M%S"))
    if folder.exists():
        raise SearchError(f"search {folder} exists already; choose another --name")
    space = default_space()
    resources = Resources(command.cpus_per_trial, command.gpus_per_trial, command.concurrent)
    if not os.environ.get("RAY_ADDRESS"):
        check_resources(resources, machines())
    device = command.device if command.gpus_per_trial > 0 or command.device != "auto" else "cpu"
    plan = Plan(base, space, [space.point_of(base)], command.trials, command.seed, device, resources)
    return plan, folder


def save_trials(rows: Sequence[TrialRow], path: Path) -> None:
    """Write all trials with their values, curves and ends as JSON, atomically."""
    plain = [dataclasses.asdict(row) for row in rows]
    write_atomically(path, (json.dumps(plain, indent=2) + "\n").encode())


def give_verdict(
    plan: Plan, configs: Mapping[str, RunConfig], folder: Path, record: SearchRecord, console: Console
) -> dict[str, Judged]:
    """Retrain and evaluate; where the default has won, it is judged alone."""
    distinct = dict(configs) if configs["best"] != configs["default"] else {"default": configs["default"]}
    asked = plan.resources
    with console.status(f"Verdict: training {' and '.join(distinct)} on all training classes, then all attacks"):
        judged = judge_all(
            distinct, folder / "verdict", device=plan.device, cpus=asked.cpus_per_trial, gpus=asked.gpus_per_trial
        )
    for name, one in judged.items():
        if one.evaluation is not None:
            record.verdict(name, distinct[name], one.history, one.evaluation)
    return judged


def conclude(
    console: Console,
    space: Space,
    folder: Path,
    rows: Sequence[TrialRow],
    best: TrialRow,
    judged: Mapping[str, Judged],
    uri: str,
) -> None:
    """Tell a person what was found and where it lies."""
    console.print(trial_table(rows, space, OBJECTIVE, title="Trials, scores on the held-out training classes"))
    console.print(f"\n[bold]Best configuration[/bold] (trial {best.number}):")
    for name, value in best.values.items():
        default = rows[0].values.get(name)
        console.print(f"  {name.replace('_', ' '):<26}{value_text(value):>9}   (default {value_text(default)})")
    evaluations = {name: one.evaluation for name, one in judged.items() if one.evaluation is not None}
    if evaluations:
        console.print()
        console.print(table_of(evaluations, title="Verdict on the test classes"))
    for name, one in judged.items():
        if one.evaluation is None:
            console.print(f"{name}: {one.status} when trained on all classes ({one.reason})", style="yellow")
    if judged and "best" not in judged:
        console.print("The default configuration is the best one that was found.")
    console.print(f"\nResults     {folder}  (best.yaml, trials.json, search.png, verdict/)")
    console.print(f"Train it    python scripts/train.py --config {folder / 'best.yaml'}")
    opened = "make ui" if uri == absolute(DEFAULT_URI) else f"mlflow ui --backend-store-uri {uri}"
    console.print(f"Compare     {opened}, then http://127.0.0.1:5000")


def result_of(folder: Path, best: TrialRow, judged: Mapping[str, Judged]) -> dict[str, object]:
    """The same for machines."""
    return {
        "folder": str(folder),
        "best": dataclasses.asdict(best),
        "verdict": {name: one.evaluation.to_dict() if one.evaluation else one.status for name, one in judged.items()},
    }


if __name__ == "__main__":
    run(main)
