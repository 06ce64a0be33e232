"""A search from its plan to its result: what `colotride search` and `colotride.search` both call."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch
from rich.console import Console
from rich.text import Text

from colotride.config import RunConfig, questionable_settings, save_config
from colotride.data.splits import load_splits
from colotride.devices import device_of
from colotride.disk import check_writable
from colotride.distributed.ray_cluster import machines, start_ray
from colotride.distributed.storage_probe import check_shared
from colotride.errors import ColoTrideError, SearchError, StorageError
from colotride.io import write_atomically
from colotride.locking import LOCK, owned
from colotride.models import build_model
from colotride.presets import configuration_of, with_presets
from colotride.terminal import Terminal
from colotride.tracking.addresses import check_tracking_uri
from colotride.tracking.export import Tracker, default_uri
from colotride.training.remote_copy import RemoteCopy
from colotride.tune.callbacks import MLflowCallback
from colotride.tune.final_evaluation import (
    BEST,
    Finalist,
    check_verdict_seeds,
    evaluate_finalists,
    finalists_of,
    register_winner,
)
from colotride.tune.packing import largest, measured_peak, memory_of, share_of_gpu
from colotride.tune.parameters import Values
from colotride.tune.plan import FILE, SearchPlan, changed, new_plan, save_plan
from colotride.tune.progress import SearchProgress
from colotride.tune.race import Contender, raced_first, run_race
from colotride.tune.ray_tune import run_trials
from colotride.tune.records import TrialRecord, best_first, pareto_front
from colotride.tune.report import write_report
from colotride.tune.resources import SearchFolders, TrialResources, capacity
from colotride.tune.seed_statistics import DEFAULT
from colotride.tune.study import JOURNAL, SearchStudy

if TYPE_CHECKING:
    import pandas

RESULTS = Path("runs/search")
"""Folder that holds the folders of all searches."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    directory: Path
    """Holds search.json, the study, trials.json, best.yaml, default.yaml, report.html, figures/ and verdict/."""
    plan: SearchPlan
    trials: list[TrialRecord]
    """All trials, by number; the first is the default configuration."""
    finalists: list[Finalist]
    """Of the final evaluation on the test classes; empty where none was asked for."""
    contenders: list[Contender]
    """Of the race between the best trials, from the best to the worst; empty where there was none."""
    complete: bool
    """False where the search was interrupted; it can be resumed."""
    tracking_uri: str
    """MLflow's store."""
    model: str | None = None
    """Name of the winner's model in MLflow."""
    mlflow_page: str = "http://127.0.0.1:5000"
    """Address of MLflow's page with the scores of this search's runs."""

    @property
    def ranked(self) -> list[TrialRecord]:
        """The finished trials from the best to the worst; those of the race come first, in its order.

        Raises:
            SearchError: no trial finished.
        """
        return raced_first(best_first(self.trials, self.plan.objectives), self.contenders)

    @property
    def best_trial(self) -> TrialRecord:
        """The best finished trial; its `config` can be trained."""
        return self.ranked[0]

    @property
    def best(self) -> Values:
        """The values of the best trial, by parameter."""
        return self.best_trial.values

    @property
    def front(self) -> list[TrialRecord]:
        """The finished trials that no other one beats in every objective."""
        return pareto_front(self.trials, self.plan.objectives)

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.directory / "report.html"

    def to_frame(self) -> "pandas.DataFrame":
        """All trials as a table: number, status, values, scores in %, cost in millions of image passes, seconds."""
        import pandas

        rows = [
            {"number": one.number, "status": one.status, "epoch": one.epoch}
            | {one_parameter.name: one.values.get(one_parameter.name) for one_parameter in self.plan.space.parameters}
            | one.scores
            | {"cost": one.cost, "seconds": one.seconds}
            for one in self.trials
        ]
        return pandas.DataFrame(rows).set_index("number")


def search(
    dataset: str | Path | RunConfig = "digits",
    trials: int = 32,
    *,
    recipe: str | None = None,
    defense: str | None = None,
    directory: str | Path | None = None,
    reading: str | None = None,
    quick: bool = False,
    overrides: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    groups: Sequence[str] = (),
    space: str | Path | None = None,
    start_from: Sequence[str | Path] = (),
    objective: str = "ars",
    verdict: bool = True,
    quiet: bool = False,
    **choices: Any,
) -> SearchResult:
    """Search for a better configuration with Ray Tune and Optuna.

    Args:
        dataset: a data set whose preset the trials vary, the path of a YAML configuration, or a `RunConfig`.
        trials: configurations to try, the default included.
        recipe: settings for a task, such as "real-photos"; see `colotride.presets.RECIPES`.
        defense: replaces the configuration's by another one with its defaults.
        directory: of the search; None for `runs/search/DATASET-DATE`.
        reading: COLO-TRIDE as the "paper" describes it (the default) or as the "released" code trains.
        quick: scale each trial down to minutes, for a first look; see `colotride.presets.with_quick_budget`.
        overrides: settings of the run by dotted path, such as {"training.epochs": 4}.
        data_root: folder that holds the data sets.
        groups: optional groups of parameters to search too: margins, learning-rate, weighting, readings, phases,
            mining, intra-class, robust-training.
        space: YAML file that narrows, replaces, fixes, removes or adds parameters.
        start_from: folders of searches or runs, or YAML configurations, to try after the default.
        objective: ars, ers, r1, map, or several for a Pareto front, such as "r1,ars".
        verdict: retrain the best and the default on all training classes and evaluate them on the test classes.
        quiet: show nothing while the search runs.
        choices: other fields of `SearchPlan`: sampler, stopping, seed, max_cost, max_epochs, top, verdict_seeds,
            deterministic, concurrent, cpus_per_trial, gpus_per_trial, workers_per_trial, device, storage, tracking_uri.

    Raises:
        SearchError: a choice that makes no sense, a directory that is taken, or no trial that finished.
        ConfigurationError, DataError, ModelError: the run cannot be trained.
    """
    run = with_presets(
        configuration_of(dataset),
        recipe=recipe,
        defense=defense,
        data_root=data_root,
        reading=reading,
        quick=quick,
    ).with_values(overrides or {})
    folder = Path(directory) if directory is not None else RESULTS / time.strftime(f"{run.data.name}-%Y%m%d-%H%M%S")
    if taken(folder):
        raise SearchError(f"{folder} exists already; choose another directory")
    plan = new_plan(
        run,
        groups=groups,
        space_file=None if space is None else Path(space),
        start_from=[Path(one) for one in start_from],
        objective=objective,
        trials=trials,
        verdict=verdict,
        **choices,
    )
    return execute(plan, folder, Terminal(stderr=True, quiet=quiet))


def execute(plan: SearchPlan, folder: Path, console: Console) -> SearchResult:
    """Run a search, or continue one, from its first trial to its report.

    Args:
        plan: of the search.
        folder: of the search; what it holds is continued.
        console: shows the trials.

    Raises:
        SearchError: more than the machines can hold, a damaged study, or no trial that finished.
        DataError, ModelError: the images or the weights that the trials start from are missing.
        StorageError: another process runs this search, or its folder cannot be written.
    """
    # Owned before Ray starts: a second search of this name is refused at once.
    with owned(folder, "search"):
        try:
            return _executed(plan, folder, console, *prepare(plan, console))
        except ColoTrideError:
            raise
        except Exception:
            # Ray does not say that it lacks room for its own records.
            check_writable(folder)
            raise


def taken(folder: Path) -> bool:
    """Whether there is something in the folder of a search that is to begin.

    A driver that is killed before it has written its plan leaves its lock, and perhaps half a plan: these count as nothing.
    """
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != LOCK and not path.name.startswith(f".{FILE}.") for path in folder.iterdir())


def _executed(
    plan: SearchPlan, folder: Path, console: Console, resources: TrialResources, at_once: int
) -> SearchResult:
    check_writable(folder)
    if plan.deterministic and plan.concurrent is None:
        # How far the sampler lags behind must not depend on the machine on which the search is resumed.
        plan = changed(plan, concurrent=at_once)
    # A name may have letters that an address may not.
    storage = None if plan.storage is None else f"{plan.storage.rstrip('/')}/{quote(folder.name)}"
    folders = SearchFolders(folder.absolute(), storage)
    # The plan of a search that has begun is compared with its trials before it is written again.
    if not (folder / FILE).exists():
        save_plan(plan, folder)
    check_verdict_seeds(plan, folder)
    study = SearchStudy(folder, plan)
    save_plan(plan, folder)
    if study.cut:
        console.print(
            f"warning: the last {study.cut} bytes of {folder / JOURNAL} were no whole line and are cut off",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    study.settle_ended(alone=0 < resources.gpus < 1)
    tracker = Tracker(plan.tracking_uri or default_uri(), folder)
    mlflow = MLflowCallback(tracker, folder.name, plan)
    mlflow.catch_up(study.records())
    finalists: list[Finalist] = []
    contenders: list[Contender] = []

    def result(*, complete: bool, model: str | None = None) -> SearchResult:
        page = tracker.page
        return SearchResult(folder, plan, study.records(), finalists, contenders, complete, tracker.uri, model, page)

    def interrupted() -> SearchResult:
        mlflow.pause()
        save_trials(study.records(), folder / "trials.json")
        return result(complete=False)

    try:
        check_shared(folder, storage)
        with SearchProgress(console, plan, study.records()) as progress:
            run_trials(study, folder, resources, at_once, folders, [progress, mlflow])
        if not study.complete:
            return interrupted()
        ranked = best_first(study.records(), plan.objectives)
        with console.status("Race") as status:
            tell = status.update if console.is_terminal else lambda text: console.print(text, soft_wrap=True)
            contenders += run_race(plan, folders, ranked, resources, at_once, mlflow, tell)
            ranked = raced_first(ranked, contenders)
            if plan.verdict:
                finalists += evaluate_finalists(plan, folders, ranked, resources, at_once, mlflow, tell)
        artifacts = _write_results(plan, folder, study.records(), ranked, contenders, finalists, tracker.page)
        model = register_winner(finalists, plan.objectives, mlflow, folders)
    except KeyboardInterrupt:
        return interrupted()
    except BaseException:
        with contextlib.suppress(StorageError):
            mlflow.close({}, [], folder, failed=True)
        raise
    mlflow.close(ranked[0].scores, artifacts, folder)
    return result(complete=True, model=model)


def prepare(plan: SearchPlan, console: Console) -> tuple[TrialResources, int]:
    """Check what the trials need before the first one starts, and start Ray.

    Returns:
        What one trial gets, and how many run at once.

    Raises:
        DataError, ModelError: the images or the weights that the trials start from are missing.
        ConfigurationError: there is no such device, or an address that cannot be used.
        SearchError: more than the machines can hold.
    """
    check_tracking_uri(plan.tracking_uri or default_uri())
    if plan.storage is not None:
        RemoteCopy(plan.storage)
    pixels = load_splits(plan.base.data).train.pixels(torch.zeros(1, dtype=torch.int64))
    build_model(plan.base.model, channels=pixels.shape[1], image_size=plan.base.data.image_size, seed=plan.base.seed)
    if plan.device != "auto":
        device_of(plan.device)
    for line in questionable_settings(plan.base):
        console.print(Text.assemble(("warning:", "yellow"), f" {line}"), soft_wrap=True)
    if plan.gpus_per_trial == "auto":
        return _packed(plan, console)
    device = plan.device if plan.gpus_per_trial > 0 or plan.device != "auto" else "cpu"
    resources = TrialResources(
        plan.cpus_per_trial, plan.gpus_per_trial, plan.concurrent, plan.workers_per_trial, device
    )
    at_once = capacity(resources, machines())
    start_ray()
    return resources, at_once


def _packed(plan: SearchPlan, console: Console) -> tuple[TrialResources, int]:
    """What a trial gets where its need is measured: a share of a GPU, or of the machine's memory where there is none."""
    if plan.workers_per_trial > 1:
        raise SearchError("--gpus-per-trial auto measures a trial in one process; give 1 with --workers-per-trial")
    start_ray()
    offered = machines()
    there = any(machine.get("GPU", 0) >= 1 for machine in offered) and plan.device != "cpu"
    peak = measured_peak(largest(plan.space, plan.base), "cuda" if there else "cpu")
    if there:
        share = share_of_gpu(peak)
        resources = TrialResources(
            plan.cpus_per_trial,
            share,
            plan.concurrent,
            device=plan.device,
            capped=True,
            beside=peak.beside / peak.total,
        )
        said = f"{1 / share:.0f} share a GPU of {peak.total / 2**30:.1f} GiB"
    else:
        resources = TrialResources(plan.cpus_per_trial, 0.0, plan.concurrent, memory=memory_of(peak))
        said = "a machine without a GPU runs as many as its memory and its cores hold"
    at_once = capacity(resources, offered)
    console.print(f"A trial needs {peak.used / 2**30:.2f} GiB: {said}, {at_once} at once.", soft_wrap=True)
    return resources, at_once


def save_trials(records: Sequence[TrialRecord], path: Path) -> None:
    """Write all trials with their values, curves, costs and ends as JSON, atomically."""
    write_atomically(path, (json.dumps([record.plain() for record in records], indent=2) + "\n").encode())


def _write_results(
    plan: SearchPlan,
    folder: Path,
    records: Sequence[TrialRecord],
    ranked: Sequence[TrialRecord],
    contenders: Sequence[Contender],
    finalists: Sequence[Finalist],
    link: str,
) -> list[Path]:
    """Write configurations, trials and report; returns the files that belong to the search's run in MLflow."""
    configs = finalists_of(plan, ranked)
    save_config(configs[DEFAULT], folder / "default.yaml")
    save_config(configs.get(BEST, configs[DEFAULT]), folder / "best.yaml")
    save_trials(records, folder / "trials.json")
    report = write_report(folder, plan, records, finalists, link, contenders)
    return [folder / "best.yaml", folder / "trials.json", folder / "search.json", *report]
