"""A tournament from its first calibration to its page; repeated after an interruption, it goes on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from colotride.config import RunConfig, config_text
from colotride.data.splits import load_splits
from colotride.disk import check_writable
from colotride.distributed.ray_cluster import machines, start_ray
from colotride.documents import read_json
from colotride.errors import SearchError
from colotride.io import write_atomically
from colotride.locking import owned
from colotride.presets import configuration_of, with_presets
from colotride.terminal import Terminal
from colotride.tournaments.page import write_page
from colotride.tournaments.plan import REFERENCE, TournamentPlan, keep_plan, new_tournament
from colotride.tournaments.results import DEFAULT_TRIAL, RETRIEVAL, ROBUSTNESS, SHOWN, FinalistResult, hypervolume
from colotride.tracking.addresses import check_tracking_uri
from colotride.tracking.export import Tracker, default_uri
from colotride.tracking.names import CONFIG_FILE, dataset_of, epoch_metrics, run_parameters, run_tags, test_metrics
from colotride.tune.api import execute
from colotride.tune.final_runs import FinalRun, train_and_evaluate_each, train_each
from colotride.tune.records import CostLimit, NoFinishedTrialError, TrialRecord, best_first
from colotride.tune.resources import TrialResources, capacity

RESULTS = "results.json"
DIRECTORY = Path("runs/tournament")
"""Folder that holds the folders of all tournaments."""

TOURNAMENT = "tournament"
"""Key of the tournament's own run in MLflow."""

MILLION = 1e6

TOLERANCE = 1.1
"""A run may cost so many times what its defense does as its authors use it: passes differ between seeds, too."""


@dataclass(frozen=True)
class TournamentResult:
    """What a tournament found."""

    directory: Path
    """Holds tournament.json, calibration/, the searches, final/, results.json, tournament.html and front.png."""
    plan: TournamentPlan
    cost: float
    """Millions of image passes that each run was to take."""
    pairs: Mapping[str, int]
    """Pairs in an epoch of each defense that take this cost."""
    finalists: list[FinalistResult]
    """Defense by defense; the first of each is the defense as its authors use it."""

    @property
    def report(self) -> Path:
        """The page, one HTML file."""
        return self.directory / "tournament.html"


def tournament(
    dataset: str | Path | RunConfig = "digits",
    defenses: Sequence[str] = (REFERENCE, "act", "hm", "naive"),
    *,
    recipe: str | None = None,
    data_root: str | Path | None = None,
    quick: bool = False,
    overrides: Mapping[str, Any] | None = None,
    directory: str | Path | None = None,
    resources: TrialResources | None = None,
    tracking_uri: str | None = None,
    quiet: bool = False,
    **choices: Any,
) -> "TournamentResult":
    """Search every defense at the same cost, retrain the best of each, and compare them on the test classes.

    Args:
        dataset: a data set's name, the path of a YAML configuration, or a `RunConfig`: data, network and budget that all
            defenses share.
        defenses: who competes; the others are compared with COLO-TRIDE, or with the first where it does not compete.
        recipe: settings for a task, such as "real-photos"; see `colotride.presets.RECIPES`.
        data_root: folder that holds the data sets.
        quick: minutes, for a first look; see `colotride.presets.with_quick_budget`.
        overrides: settings of the run by dotted path, such as {"training.epochs": 4}.
        directory: of the tournament; None for `runs/tournament/DATASET`. What it holds is continued.
        resources: of one run; None for one CPU core each.
        tracking_uri: MLflow's store; None for the default one.
        quiet: show nothing while it runs.
        choices: other fields of `TournamentPlan`: steps, cost, trials, finalists, seeds, seed.

    Raises:
        ConfigurationError: an unknown defense, or a choice out of its range.
        SearchError: the directory holds another tournament.
    """
    run = with_presets(configuration_of(dataset), recipe=recipe, data_root=data_root, quick=quick)
    plan = new_tournament(run.with_values(overrides or {}), defenses=tuple(defenses), **choices)
    folder = Path(directory) if directory is not None else DIRECTORY / run.data.name
    return run_tournament(plan, folder, Terminal(stderr=True, quiet=quiet), resources, tracking_uri)


def run_tournament(
    plan: TournamentPlan,
    folder: Path,
    console: Console,
    resources: TrialResources | None = None,
    tracking_uri: str | None = None,
) -> TournamentResult:
    """Run a tournament, or continue the one that a folder holds.

    1. Calibrate: every defense, as its authors use it, is trained once, and what its batches cost is measured; an
       attack that stops early costs less than its steps say. The pairs of its epochs are then set so that a run takes
       the cost in as many epochs as the others.
       A configuration that needs more passes, by its ramp or otherwise, ends after the last epoch within the cost.
    2. Search: each defense in its own space, with the same number of trials, for the front of R@1 and ARS on classes
       that are held out from training.
    3. Final: the finalists, and each defense as its authors use it, are trained with several seeds on all training
       classes and judged on the test classes.

    Args:
        plan: of the tournament.
        folder: of the tournament; what it holds is continued.
        console: shows what is done.
        resources: of one run; None for one CPU core each.
        tracking_uri: MLflow's store; None for the default one.

    Raises:
        SearchError: the folder holds another tournament, or more is asked for than the machines hold.
        KeyboardInterrupt: it was interrupted; the same call goes on.
    """
    resources, uri = resources or TrialResources(), tracking_uri or default_uri()
    check_tracking_uri(uri)
    load_splits(plan.base.data)
    at_once = capacity(resources, machines(), "run")
    start_ray()
    with owned(folder, "tournament"):
        check_writable(folder)
        keep_plan(plan, folder)
        return _run(plan, folder.absolute(), console, resources, at_once, uri)


def load_results(folder: Path) -> TournamentResult:
    """Read what a tournament found, to compute its numbers again.

    Raises:
        SearchError: the folder holds no finished tournament.
    """
    plan = TournamentPlan.model_validate(read_json(folder / "tournament.json", "tournament", SearchError))
    found = read_json(folder / RESULTS, "results", SearchError)
    finalists = [
        FinalistResult(
            **{
                **one,
                "scores": {name: {int(seed): v for seed, v in by.items()} for name, by in one["scores"].items()},
                "costs": {int(seed): cost for seed, cost in one["costs"].items()},
                "ends": tuple(one["ends"]),
            }
        )
        for one in found["finalists"]
    ]
    return TournamentResult(folder, plan, found["cost"], found["pairs"], finalists)


def chosen(records: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """The finalists among trials: one after the other that which adds most to the area below the front.

    Args:
        records: trials, of which those that finished are considered.
        count: how many to choose; fewer where there are fewer.
    """
    ranked = best_first(records, (RETRIEVAL, ROBUSTNESS)) if any(one.status == "finished" for one in records) else []
    taken: list[TrialRecord] = []
    while len(taken) < count and len(taken) < len(ranked):
        rest = [one for one in ranked if one not in taken]
        taken.append(max(rest, key=lambda one: hypervolume([_point(other) for other in (*taken, one)])))
    return taken


def _run(
    plan: TournamentPlan, folder: Path, console: Console, resources: TrialResources, at_once: int, uri: str
) -> TournamentResult:
    tracker = Tracker(uri, folder)
    tags = {"dataset": plan.base.data.name, "kind": "tournament"}
    parameters = {name: str(getattr(plan, name)) for name in ("trials", "finalists", "seeds")}
    tracker.start(TOURNAMENT, folder.name, parameters=parameters | {"defenses": ",".join(plan.defenses)}, tags=tags)
    say = _speaker(console)
    cost, pairs, limits = _calibrate(plan, folder, resources, at_once, say)
    finals: list[tuple[str, TrialRecord]] = []
    for defense in plan.defenses:
        say(f"Search of {defense}: {plan.trials} trials of {pairs[defense]} pairs an epoch")
        machine = {
            "concurrent": resources.concurrent,
            "cpus_per_trial": resources.cpus,
            "gpus_per_trial": resources.gpus,
            "device": resources.device,
            "tracking_uri": uri,
        }
        search = plan.search_of(defense, pairs[defense], max_cost=limits[defense], **machine)
        try:
            result = execute(search, folder / "searches" / f"{folder.name}-{defense}", console)
        except NoFinishedTrialError as error:
            # The defense competes as its authors use it, with whatever becomes of it.
            say(f"{defense}: {error}")
            trials = error.records
        else:
            if not result.complete:
                tracker.close()
                raise KeyboardInterrupt
            trials = result.trials
        default, *others = trials
        finals += [(defense, record) for record in (default, *chosen(others, plan.finalists))]
    finalists = _final(plan, folder, finals, limits, resources, at_once, tracker, say)
    found = TournamentResult(folder, plan, cost, pairs, finalists)
    plain = {"cost": cost, "pairs": pairs, "finalists": [asdict(one) for one in finalists]}
    write_atomically(folder / RESULTS, (json.dumps(plain, indent=2) + "\n").encode())
    files = [folder / RESULTS, *write_page(folder, plan, cost, pairs, finalists)]
    for file in files:
        tracker.artifact(TOURNAMENT, file)
    tracker.end(TOURNAMENT)
    tracker.close()
    return found


def _calibrate(
    plan: TournamentPlan, folder: Path, resources: TrialResources, at_once: int, say: Callable[[str], None]
) -> tuple[float, dict[str, int], dict[str, float]]:
    """The cost of a run, the pairs in an epoch of each defense that take it, and what its runs may cost at most."""
    runs = {folder / "calibration" / name: _whole(plan.run_of(name)) for name in plan.defenses}
    per_batch: dict[str, float] = {}
    batches = 1.0
    for path, outcome in train_each(runs, resources, at_once):
        if not outcome.history:
            raise SearchError(
                f"{path.name} {outcome.status} before the end of its first epoch ({outcome.reason}); what it costs is "
                "unknown: leave it out of --defenses, or give a lower --run.training.learning-rate"
            )
        batches = outcome.history[-1].step / len(outcome.history)
        per_batch[path.name] = sum(epoch.passes for epoch in outcome.history) / outcome.history[-1].step
        say(f"Calibration: {path.name} takes {per_batch[path.name]:.0f} image passes a batch")
    epochs, size = plan.base.training.epochs, plan.base.data.pairs_per_batch
    cost = plan.cost or per_batch[plan.reference] * batches * epochs / MILLION
    fitted = {name: max(1, round(cost * MILLION / (epochs * per_batch[name]))) for name in plan.defenses}
    pairs = {name: count * size for name, count in fitted.items()}
    # Whole batches: a run of few of them costs more or less than was asked for.
    limits = {name: TOLERANCE * count * epochs * per_batch[name] / MILLION for name, count in fitted.items()}
    return cost, pairs, limits


def _final(
    plan: TournamentPlan,
    folder: Path,
    finals: Sequence[tuple[str, TrialRecord]],
    limits: Mapping[str, float],
    resources: TrialResources,
    at_once: int,
    tracker: Tracker,
    say: Callable[[str], None],
) -> list[FinalistResult]:
    first = plan.base.seed
    places = {
        folder / "final" / f"{defense}-{record.number:03d}" / f"seed-{seed}": (defense, record, seed)
        for seed in range(first, first + plan.seeds)
        for defense, record in finals
    }
    configs = {path: _whole(record.config).with_values({"seed": seed}) for path, (_, record, seed) in places.items()}
    ended: dict[tuple[str, int, int], FinalRun] = {}
    allowed = {
        path: CostLimit(None if record.number == DEFAULT_TRIAL else limits[defense], 1)
        for path, (defense, record, _) in places.items()
    }
    for path, run in train_and_evaluate_each(configs, resources, at_once, allowed):
        defense, record, seed = places[path]
        ended[defense, record.number, seed] = run
        name = f"{defense} trial {record.number} seed {seed}"
        _record(name, configs[path], run, tracker)
        scores = run.evaluation.scores() if run.evaluation else {}
        shown = "  ".join(f"{score} {scores[score]:.1f}" for score in (RETRIEVAL, ROBUSTNESS) if score in scores)
        say(f"[{len(ended)}/{len(places)}] {name}: {run.status}  {shown}")
    seeds = range(first, first + plan.seeds)
    return [
        _finalist(defense, record, {seed: ended[defense, record.number, seed] for seed in seeds})
        for defense, record in finals
    ]


def _finalist(defense: str, record: TrialRecord, runs: Mapping[int, FinalRun]) -> FinalistResult:
    by_seed = {seed: run.evaluation.scores() if run.evaluation else {} for seed, run in runs.items()}
    names = list(dict.fromkeys(name for scores in by_seed.values() for name in scores)) or list(SHOWN)
    return FinalistResult(
        defense=defense,
        trial=record.number,
        values=dict(record.values),
        validation=dict(record.scores),
        scores={name: {seed: scores.get(name, 0.0) for seed, scores in by_seed.items()} for name in names},
        costs={seed: sum(epoch.passes for epoch in run.history) / MILLION for seed, run in runs.items()},
        ends=tuple(f"seed {seed} {run.status}" for seed, run in runs.items() if run.status != "finished"),
    )


def _record(name: str, config: RunConfig, run: FinalRun, tracker: Tracker) -> None:
    key, tags = f"final/{name}", run_tags(config, "tournament") | {"status": run.status}
    new = tracker.start(
        key, name, parameters=run_parameters(config), tags=tags, parent=TOURNAMENT, dataset=dataset_of(config)
    )
    if new:
        tracker.text(key, CONFIG_FILE, config_text(config))
    for epoch in run.history:
        tracker.metrics(key, epoch_metrics(epoch), epoch.epoch)
    if run.evaluation:
        tracker.metrics(key, test_metrics(run.evaluation.scores()))
    tracker.end(key)


def _whole(config: RunConfig) -> RunConfig:
    """The run on all training classes."""
    return config.with_values({"data.hold_out_validation": False})


def _point(record: TrialRecord) -> tuple[float, float]:
    return record.scores[RETRIEVAL], record.scores[ROBUSTNESS]


def _speaker(console: Console) -> Callable[[str], None]:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    return say
