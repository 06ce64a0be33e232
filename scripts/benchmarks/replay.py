"""Searches replayed on a measured table: hundreds of repetitions per method, in milliseconds each.

The search's own study draws, judges and stops the trials; only their training is read instead of done. A trial gets the
numbers of the table's configuration that is nearest to the values that the sampler drew. All trials of a search have one
seed, as in a real one, and the race repeats the best of them with the others.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.storages import InMemoryStorage

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.randomness import derive_seed
from colotride.training.records import EpochRecord
from colotride.tune.parameters import Choice, Integer, Values
from colotride.tune.plan import Sampler, SearchPlan, Stopping, new_plan
from colotride.tune.race import race, raced_first
from colotride.tune.records import LOST, TrialRecord, best_first
from colotride.tune.study import SearchStudy
from scripts.benchmarks.forecast import ForecastPruner
from scripts.benchmarks.table import GROUPS, TEST, VALIDATION, base_of

SCORE = "ARS"
"""What is searched for."""

WINDOW = 3
"""Validations whose mean over all seeds is what a configuration is worth."""

AT_ONCE = 2
"""Trials side by side."""


@dataclass(frozen=True)
class Method:
    """One way to search."""

    sampler: Sampler = "tpe"
    stopping: Stopping = "none"
    contenders: int = 0
    """Trials that are repeated at the end with two further seeds; 0 for no race."""
    average_over: int = 3
    """Validations whose mean judges a trial."""
    hyperband: bool = False
    rungs: tuple[int, int] | None = None
    """Successive halving's first rung in epochs and its factor, instead of the default ones."""
    forecast: bool = False
    prior: int = 0
    """Trials that are drawn around the default after it."""
    former: int = 0
    """How many of the best trials of a former search, with other seeds, are tried after the default."""
    slow: bool = False
    """Whether drawing a trial takes so long that fewer searches are replayed."""


METHODS: Mapping[str, Method] = {
    "random, last validation": Method("random", average_over=1),
    "random": Method("random"),
    "random, ASHA": Method("random", "asha"),
    "TPE": Method(),
    "TPE, last validation": Method(average_over=1),
    "TPE, prior": Method(prior=6),
    "TPE, ASHA, race, after a search": Method(stopping="asha", contenders=3, former=1),
    "TPE, ASHA, race, after a search's five": Method(stopping="asha", contenders=3, former=5),
    "GP": Method("gp", slow=True),
    "NSGA-II": Method("nsga2"),
    "TPE, median": Method(stopping="median"),
    "TPE, Hyperband": Method(hyperband=True),
    "TPE, forecast": Method(forecast=True),
    "TPE, ASHA by thirds": Method(rungs=(3, 3)),
    "TPE, ASHA": Method(stopping="asha"),
    "TPE, ASHA, race": Method(stopping="asha", contenders=3),
}
"""The last one is what `colotride search` does unless it is told otherwise."""


@dataclass(frozen=True)
class Runs:
    """All runs of one configuration: what a trial would have seen, by seed."""

    number: int
    curves: dict[int, list[EpochRecord]]
    statuses: dict[int, str]
    validation: float
    """Mean over the seeds of a trial's score, in percent."""
    test: float
    retrieval: float
    """Mean R@1 on the test classes."""


class MeasuredSpace:
    """The configurations of a table within the space that is searched by default, and which of them is nearest."""

    def __init__(self, table: pd.DataFrame, plan: SearchPlan, space: str = "default") -> None:
        """Read the table's runs.

        Args:
            table: see `table.load_table`.
            plan: says which parameters there are and how they are scaled.
            space: whose configurations: "default" or "all".
        """
        self.plan = plan
        part = table[(table["space"] == space) | (table["configuration"] == 0)]
        self.runs: list[Runs] = []
        points = []
        for _, rows in part.groupby("configuration"):
            by_seed: dict[int, list[dict[str, Any]]] = {}
            for row in rows.to_dict("records"):
                by_seed.setdefault(int(row["seed"]), []).append({str(name): value for name, value in row.items()})
            first = next(iter(by_seed.values()))[0]
            values = {name: value for name, value in first.items() if not pd.isna(value)}
            if first["configuration"] == 0:
                values |= plan.initial_points[0]
            points.append(self.point(values))
            curves = {seed: _curve(one) for seed, one in by_seed.items()}
            # By one measure, whatever the method itself looks at.
            scores = [
                _score(curve, plan.base.with_values({"validation.average_over": WINDOW})) for curve in curves.values()
            ]
            tests = [(one[-1][TEST + SCORE], one[-1][TEST + "R@1"]) for one in by_seed.values()]
            statuses = {seed: str(one[0]["status"]) for seed, one in by_seed.items()}
            test, retrieval = (float(np.mean(column)) for column in zip(*tests, strict=True))
            number = int(first["configuration"])
            self.runs.append(Runs(number, curves, statuses, float(np.mean(scores)), test, retrieval))
        self._points = np.stack(points)
        # The default has more seeds than the others.
        self.seeds = sorted(set.intersection(*(set(one.curves) for one in self.runs)))

    @property
    def default(self) -> Runs:
        """Of the default configuration."""
        return self.runs[0]

    @property
    def best(self) -> float:
        """The highest mean validation score of a configuration."""
        return max(one.validation for one in self.runs)

    def nearest(self, values: Values) -> Runs:
        """The runs of the configuration nearest to any values: Euclidean, on the scales on which they are drawn."""
        point = self.point(values)
        difference = np.abs(self._points - point)
        # A range that only one of both has counts like its two ends, and so does a different choice.
        distance = np.where(np.isnan(difference), np.isnan(self._points) != np.isnan(point), difference)
        return self.runs[int(np.argmin((distance**2).sum(axis=1)))]

    def point(self, values: Mapping[str, Any]) -> np.ndarray:
        """Values on their scales: [0, 1] for ranges, one number per choice, NaN where a parameter does not apply."""
        numbers: list[float] = []
        for one in self.plan.space.parameters:
            value = values.get(one.name)
            if isinstance(one, Choice):
                # Half of the squared distance comes from each of the two choices that differ.
                numbers += [float(value == choice) / 2**0.5 for choice in one.values]
            elif value is None:
                numbers.append(np.nan)
            elif one.log:
                numbers.append(float(np.log(float(value) / one.low) / np.log(one.high / one.low)))
            else:
                numbers.append((float(value) - one.low) / (one.high - one.low))
        return np.array(numbers)


@dataclass(frozen=True)
class Replay:
    """One replayed search."""

    epochs: list[int]
    """Epochs trained over all trials when a trial became the best."""
    best: list[Runs]
    """That trial's configuration."""
    winner: Runs
    """The configuration that the search ends with, after the race where there is one."""
    trained: int
    """Epochs in all, those of the race included."""
    trials: int
    ranked: list[Values]
    """Values of the finished trials from the best to the worst."""


def plan_of(method: Method, trials: int, space: str, dataset: str = "digits", seed: int = 0) -> SearchPlan:
    """The plan of a search that may train as many epochs as a number of whole trials take, its race included.

    Args:
        method: how to search.
        trials: whose epochs are the budget.
        space: "default" or "all".
        dataset: one with a preset and a table.
        seed: of the sampler.
    """
    base = base_of(dataset).with_values({"validation.average_over": method.average_over})
    plan = new_plan(base, groups=GROUPS if space == "all" else (), stopping=method.stopping)
    rng = np.random.default_rng(derive_seed(seed, "prior"))
    points = (*plan.initial_points, *(_near(plan, rng) for _ in range(method.prior)))
    budget = plan.epochs * (trials - 2 * method.contenders)
    if budget <= 0:
        raise SearchError(
            f"--trials {trials} is used up by the race of {method.contenders} trials with two further seeds; "
            f"give more than {2 * method.contenders}"
        )
    return plan.model_copy(
        update={
            "trials": 4 * trials,
            "max_epochs": budget,
            "sampler": method.sampler,
            "seed": seed,
            "initial_points": points,
        }
    )


def _near(plan: SearchPlan, rng: np.random.Generator) -> Values:
    """Values drawn around the default: normal on the scale of each parameter, a fifth of its range wide."""
    found: Values = {}
    for one in plan.space.parameters:
        if not one.applies(found):
            continue
        default = plan.initial_points[0].get(one.name)
        if isinstance(one, Choice):
            found[one.name] = (
                default if default is not None and rng.random() < 0.6 else one.values[rng.integers(len(one.values))]
            )
            continue
        ends = np.array([one.low, one.high], dtype=float)
        low, high = np.log(ends) if one.log else ends
        start = (low + high) / 2 if default is None else float(np.log(default) if one.log else default)
        value = float(np.clip(rng.normal(start, (high - low) / 5), low, high))
        value = float(np.exp(value)) if one.log else value
        found[one.name] = min(one.high, max(one.low, round(value) if isinstance(one, Integer) else value))
    return found


def replay(space: MeasuredSpace, plan: SearchPlan, method: Method, seed: int) -> Replay:
    """Search once.

    Args:
        space: what was measured.
        plan: of the search; its seed is that of the sampler.
        method: how to search.
        seed: of the trials.
    """
    if method.former:
        plan = _after_a_search(space, plan, method, seed)
    study = SearchStudy(Path("replay"), plan, InMemoryStorage())
    if method.rungs is not None:
        study.study.pruner = SuccessiveHalvingPruner(min_resource=method.rungs[0], reduction_factor=method.rungs[1])
    if method.forecast:
        study.study.pruner = ForecastPruner(finished=5, grace=3)
    if method.hyperband:
        study.study.pruner = HyperbandPruner(min_resource=1, max_resource=plan.epochs, reduction_factor=3)
    running: list[int] = []
    found: dict[int, Runs] = {}
    epochs, best, highest, trained = list[int](), list[Runs](), -np.inf, 0
    while True:
        while len(running) < AT_ONCE and (record := study.draw()) is not None:
            found[record.number] = space.nearest(record.values)
            running.append(record.number)
        if not running:
            break
        still = []
        for number in running:
            record = _trained(study.record(number), found[number], seed)
            trained += 1
            if not study.report(record) and record.status == "running":
                still.append(number)
                continue
            study.settle(number)
            record = study.record(number)
            if record.status == "finished" and record.scores[SCORE] > highest:
                highest = record.scores[SCORE]
                epochs.append(trained)
                best.append(found[number])
        running = still

    def repeat(asked: Sequence[tuple[TrialRecord, int]]) -> Iterator[tuple[int, int, float]]:
        nonlocal trained
        for record, other in asked:
            curve = found[record.number].curves[other]
            trained += len(curve)
            yield record.number, other, _score(curve, plan.base)

    if not best:
        # Every trial was stopped early: whoever searched is left with the default.
        return Replay([trained], [space.default], space.default, trained, len(found), [])
    winner, ranked = best[-1], best_first(study.records(), [SCORE])
    if method.contenders:
        others = [other for other in space.seeds if other != seed]
        # Two trials near one configuration of the table are the same runs here; trained in earnest they would differ.
        apart = list({found[one.number].number: one for one in reversed(ranked)}.values())
        apart = best_first(apart, [SCORE])[: method.contenders]
        ranked = raced_first(ranked, race(apart, SCORE, [seed, *others], repeat))
        winner = found[ranked[0].number]
    return Replay(epochs, best, winner, trained, len(found), [one.values for one in ranked])


def _after_a_search(space: MeasuredSpace, plan: SearchPlan, method: Method, seed: int) -> SearchPlan:
    """The plan that starts from what a former search found, whose sampler and trials had other seeds."""
    former = plan.model_copy(update={"seed": derive_seed(plan.seed, "former")})
    other = space.seeds[(space.seeds.index(seed) + 1) % len(space.seeds)]
    found = replay(space, former, dataclasses.replace(method, former=0), other).ranked[: method.former]
    new = [values for values in found if values not in plan.initial_points]
    return plan.model_copy(update={"initial_points": (*plan.initial_points, *new)})


def _trained(record: TrialRecord, runs: Runs, seed: int) -> TrialRecord:
    """A trial's record after one more epoch."""
    curve = runs.curves[seed]
    epoch = record.epoch + 1
    record = dataclasses.replace(record, history=tuple(curve[:epoch]))
    return record.with_end(runs.statuses[seed]) if epoch == len(curve) else record


def _curve(rows: Sequence[Mapping[str, Any]]) -> list[EpochRecord]:
    found = []
    for row in rows:
        scores = {name.removeprefix(VALIDATION): row[name] for name in row if name.startswith(VALIDATION)}
        kept = {} if row["status"] in LOST and row is rows[-1] else scores
        found.append(EpochRecord(int(row["epoch"]), int(row["epoch"]), row["seconds"], {}, kept, int(row["passes"])))
    return found


def _score(curve: Sequence[EpochRecord], base: RunConfig) -> float:
    return TrialRecord(1, {}, base, history=tuple(curve)).scores[SCORE]
