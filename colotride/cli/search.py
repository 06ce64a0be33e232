"""Search for a better configuration: Ray Tune with Optuna, recorded in MLflow, with a verdict on the test classes.

Examples:
    python tune/search.py --dataset digits
    python tune/search.py --dataset cub --data-root ~/data --trials 40 --gpus-per-trial 0.25
    python tune/search.py --dataset sop --workers-per-trial 4 --gpus-per-trial 1 --storage s3://bucket/searches
    python tune/search.py --dataset digits --objective r1,ars --sampler nsga2 --groups margins learning-rate
    python tune/search.py --resume digits-20261123-120000
"""

import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from colotride.cli.options import base_config, parse
from colotride.config import RunConfig

if TYPE_CHECKING:
    from colotride.tune.plan import SearchPlan

INTERRUPTED = 130
"""Exit code of a command that was interrupted, as shells have it."""

MACHINE = (
    "concurrent", "cpus_per_trial", "gpus_per_trial", "workers_per_trial", "device", "storage", "tracking_uri",
)  # fmt: skip
VERDICT = ("verdict", "top", "verdict_seeds")
RESUMABLE = ("trials", "max_epochs", *VERDICT, *MACHINE)
"""What may change when a search is resumed; the rest would make its trials incomparable."""


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
    sampler: Literal["tpe", "gp", "nsga2", "random"] = "tpe"
    """tpe (multivariate, constant liar), gp (Gaussian process), nsga2 (for several objectives) or random."""
    stopping: Literal["asha", "median", "none"] | None = None
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
    """Go on with a search that was interrupted, with every choice of its first call that is not given again."""
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
    # The search's own modules import Ray and Optuna, which takes seconds.
    from rich.console import Console

    from colotride.tune.api import execute
    from colotride.tune.summary import as_json, show_interrupted, show_summary

    if command.resume is None:
        plan, folder = begun(command, shlex.join(["python", "tune/search.py", *arguments]))
    else:
        plan, folder = resumed(command, _given(arguments))
    console = Console(stderr=command.json)
    result = execute(plan, folder, console)
    if not result.complete:
        show_interrupted(console, plan, folder, result.trials)
        return INTERRUPTED
    if command.json:
        print(json.dumps(as_json(plan, folder, result.ranked, result.finalists)))
    else:
        show_summary(
            console, plan, folder, result.trials, result.ranked, result.finalists, result.tracking_uri, result.model
        )
    return 0


def begun(command: Search, typed: str) -> tuple["SearchPlan", Path]:
    """The plan and the folder of a new search.

    Args:
        command: the options.
        typed: the command line.

    Raises:
        SearchError: an option that makes no sense, or a name that is taken.
    """
    from colotride.errors import SearchError
    from colotride.presets import with_data_root
    from colotride.tune.plan import new_plan

    run = with_data_root(command.run, command.data_root)
    folder = command.results / (command.name or time.strftime(f"{run.data.name}-%Y%m%d-%H%M%S"))
    if folder.exists():
        raise SearchError(
            f"search {folder} exists already; choose another --name, or go on with it: --resume {folder.name}"
        )
    chosen = {name: getattr(command, name) for name in ("sampler", "seed", "max_cost", *RESUMABLE)}
    if command.trials is None:
        del chosen["trials"]
    plan = new_plan(
        run,
        groups=command.groups,
        space_file=command.space,
        start_from=command.start_from,
        objective=command.objective,
        stopping=command.stopping,
        first_share=command.first_share,
        command=typed,
        **chosen,
    )
    return plan, folder


def resumed(command: Search, given: set[str]) -> tuple["SearchPlan", Path]:
    """The plan and the folder of a search that goes on: as it was begun, except for what is given again.

    Args:
        command: the options.
        given: names of those that were typed.

    Raises:
        SearchError: there is no such search, or an option that decides its numbers.
    """
    from colotride.data.settings import absolute_root
    from colotride.errors import SearchError
    from colotride.presets import with_data_root
    from colotride.tune.plan import changed, load_plan

    fixed = sorted(given - {*RESUMABLE, "resume", "results", "json", "data_root"})
    if fixed:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in fixed)
        raise SearchError(f"{options} cannot change in a search that was begun; leave it out, or begin a new search")
    folder = command.results / str(command.resume)
    plan = load_plan(folder)
    choices = {name: getattr(command, name) for name in RESUMABLE if name in given}
    if command.data_root is not None:
        base = with_data_root(plan.base, command.data_root)
        choices["base"] = base.with_values({"data.root": absolute_root(base.data.root)})
    return changed(plan, **choices), folder


def _given(arguments: Sequence[str]) -> set[str]:
    """Names of the options that were typed; `run` stands for all settings of the run."""
    words = [word.partition("=")[0].removeprefix("--") for word in arguments if word.startswith("--")]
    names = {field.name for field in dataclasses.fields(Search)}
    found = {word.partition(".")[0].replace("-", "_") for word in words}
    return {name if name in names else name.removeprefix("no_") for name in found}
