"""The race: the best trials are repeated with further seeds, before the verdict sees any test image.

The best of many trials is in part the luckiest: with another seed it would have scored less. A few repetitions of the
best few tell luck from merit, and those that fall behind are not repeated further.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from colotride.tune.records import TrialRecord

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
    reach = float(stats.t.ppf(CERTAINTY, freedom)) * noise * math.sqrt(2 / seeds)
    return [one for one, mean in zip(running, means, strict=True) if means.max() - mean > reach]
