"""The race: the best trials are repeated with further seeds, before the verdict sees any test image.

The best of many trials is in part the luckiest: with another seed it would have scored less. A few repetitions of the
best few tell luck from merit, and those that fall behind are not repeated further.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.table import Table
from scipy.special import stdtrit

from colotride.tune.callbacks import MLflowCallback
from colotride.tune.final_runs import train_each
from colotride.tune.plan import SearchPlan
from colotride.tune.records import TrialRecord
from colotride.tune.resources import SearchFolders, TrialResources

CERTAINTY = 0.95
"""Of a difference that ends a contender's race."""

Repeat = Callable[[Sequence[tuple[TrialRecord, int]]], Iterable[tuple[int, int, float]]]
"""Trains trials with other seeds; yields the number of the trial, the seed and the validation score."""


@dataclass
class Contender:
    """One of the best trials, with its scores by seed."""

    record: TrialRecord
    scores: dict[int, float] = field(default_factory=dict)
    """Validation scores in percent; a lost model has 0."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.scores.values())))


def race(ranked: Sequence[TrialRecord], score: str, seeds: Sequence[int], repeat: Repeat) -> list[Contender]:
    """Repeat the best trials, seed by seed, and drop whoever falls behind by more than the noise.

    Args:
        ranked: the contenders from the best to the worst.
        score: by which they are judged.
        seeds: the trials' own, and the further ones.
        repeat: trains a round.

    Returns:
        The contenders from the best to the worst: those that ran all rounds first.
    """
    first, *further = seeds
    running = [Contender(record, {first: record.scores[score]}) for record in ranked]
    dropped: list[Contender] = []
    for seed in further:
        if len(running) < 2:
            break
        places = {one.record.number: one for one in running}
        for number, done, value in repeat([(one.record, seed) for one in running]):
            places[number].scores[done] = value
        behind = _behind(running)
        dropped = sorted(behind, key=lambda one: -one.mean) + dropped
        running = [one for one in running if one not in behind]
    return sorted(running, key=lambda one: -one.mean) + dropped


def _behind(running: Sequence[Contender]) -> list[Contender]:
    """The contenders that the leader beats by more than the noise that all of them show together.

    Seeds raise and lower all contenders alike; what remains when the means of seeds and contenders are taken away is
    noise, estimated from all contenders at once.
    """
    table = np.array([list(one.scores.values()) for one in running])
    contenders, seeds = table.shape
    freedom = (contenders - 1) * (seeds - 1)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    noise = math.sqrt(float((rest**2).sum()) / freedom)
    means = table.mean(axis=1)
    reach = float(stdtrit(freedom, CERTAINTY)) * noise * math.sqrt(2 / seeds)
    return [one for one, mean in zip(running, means, strict=True) if means.max() - mean > reach]


def raced_first(ranked: Sequence[TrialRecord], contenders: Sequence[Contender]) -> list[TrialRecord]:
    """Trials from the best to the worst, those of the race first, in its order."""
    raced = [one.record for one in contenders]
    numbers = {one.number for one in raced}
    return [*raced, *(one for one in ranked if one.number not in numbers)]


def race_rows(contenders: Sequence[Contender]) -> list[dict[str, str]]:
    """The race as text: each contender's score by seed, and its mean."""
    seeds = list(dict.fromkeys(seed for one in contenders for seed in one.scores))
    return [
        {
            "trial": str(one.record.number),
            **{f"seed {seed}": f"{one.scores[seed]:.1f}" if seed in one.scores else "dropped" for seed in seeds},
            "mean": f"{one.mean:.1f}",
        }
        for one in contenders
    ]


def race_table(contenders: Sequence[Contender], score: str) -> Table:
    """The same for a terminal."""
    rows = race_rows(contenders)
    table = Table(
        title="Race of the best trials, repeated with further seeds",
        caption=f"{score} on the held-out classes, %",
        box=box.SIMPLE_HEAD,
    )
    for column in rows[0]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    return table


def run_race(
    plan: SearchPlan,
    folders: SearchFolders,
    ranked: Sequence[TrialRecord],
    resources: TrialResources,
    at_once: int,
    mlflow: MLflowCallback,
    on_progress: Callable[[str], None],
) -> list[Contender]:
    """Repeat the best trials of a search as they were, on the same validation classes, with further seeds.

    Repetitions that an interrupted session finished are not trained again.

    Args:
        plan: of the search.
        folders: of the search; get `race/TRIAL/seed-SEED`.
        ranked: finished trials from the best to the worst.
        resources: of one run.
        at_once: runs side by side.
        mlflow: records every run.
        on_progress: called with a line that says how much is done.

    Returns:
        The contenders from the best to the worst; none where there is no race.
    """
    contenders = ranked[: plan.contenders]
    if len(contenders) < 2:
        return []
    score, total = plan.objectives[0], len(contenders) * plan.race_seeds
    done = 0

    def repeat(asked: Sequence[tuple[TrialRecord, int]]) -> Iterator[tuple[int, int, float]]:
        nonlocal done
        places = {
            (folders.root / "race" / f"{record.number:03d}" / f"seed-{seed}"): (record, seed) for record, seed in asked
        }
        configs = {path: record.config.with_values({"seed": seed}) for path, (record, seed) in places.items()}
        for path, outcome in train_each(configs, resources, at_once, plan.cost_limit(), folders):
            record, seed = places[path]
            lost = outcome.status != "finished"
            repeated = dataclasses.replace(record, config=configs[path], history=tuple(outcome.history))
            mlflow.repeated(f"trial {record.number} seed {seed}", repeated.with_end(outcome.status, outcome.reason))
            done += 1
            on_progress(f"Race: the best {len(contenders)} trials with {plan.race_seeds} more seeds: {done} of {total}")
            yield record.number, seed, 0.0 if lost else repeated.scores[score]

    on_progress(f"Race: the best {len(contenders)} trials with {plan.race_seeds} more seeds: 0 of {total}")
    first = plan.base.seed
    return race(contenders, score, range(first, first + plan.race_seeds + 1), repeat)
