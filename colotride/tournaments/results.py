"""What a tournament says: fronts of R@1 against ARS, their hypervolumes, and differences at equal or higher R@1."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import stdtrit

from colotride.tune.seed_statistics import CONFIDENCE, Difference, paired_difference

RETRIEVAL, ROBUSTNESS = "R@1", "ARS"
"""What the front weighs against each other."""

DEFAULT_TRIAL = 1
"""The trial of a search that is the defense as its authors use it."""

SHOWN = ("R@1", "ARS", "ERS", "mAP", "ES:R")


@dataclass(frozen=True)
class FinalistResult:
    """One configuration of one defense, retrained with several seeds and judged on the test classes."""

    defense: str
    trial: int
    """Of the defense's search; 1 is the defense as its authors use it."""
    values: Mapping[str, Any]
    """Of the parameters that were searched."""
    validation: Mapping[str, float]
    """Scores of the trial on the classes that were held out from training."""
    scores: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """On the test classes, by name and seed, in percent. A lost model scores 0, as it retrieves nothing."""
    costs: Mapping[int, float] = field(default_factory=dict)
    """Millions of image passes of each run."""
    ends: tuple[str, ...] = ()
    """How the runs ended that did not finish."""

    @property
    def name(self) -> str:
        """Defense and trial."""
        return f"{self.defense} #{self.trial}"

    def mean(self, score: str) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.scores[score].values())))

    def deviation(self, score: str) -> float:
        """Standard deviation over the seeds; 0 for a single one."""
        values = list(self.scores[score].values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with Student's 95 % interval; its ends are None with a single seed."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]")


@dataclass(frozen=True)
class Match:
    """The reference beside one finalist of another defense."""

    other: FinalistResult
    reference: FinalistResult | None
    """Of its finalists whose mean R@1 is at least the other's the one that had the highest ARS in the search; None where
    there is none."""
    robustness: Difference | None
    """How much higher the reference's ARS is, paired by seed; None where it cannot be said. The intervals of all matches
    hold together."""
    retrieval: Difference | None
    """The same of R@1."""

    @property
    def verdict(self) -> str:
        """What the match says, in a few words."""
        if self.reference is None:
            return "no finalist with this R@1"
        if self.robustness is None:
            return "one seed says nothing of the noise"
        if not self.robustness.beyond_noise:
            return "cannot be told apart"
        return "reference ahead" if self.robustness.mean > 0 else "other ahead"


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other one beats, by their first coordinate from the lowest.

    Of equal points the first stays.
    """
    kept: list[str] = []
    best = -math.inf
    for name, (_, second) in sorted(points.items(), key=lambda one: (-one[1][0], -one[1][1])):
        if second > best:
            kept.append(name)
            best = second
    return kept[::-1]


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """The share of the square from 0 to 100 that is below the front of points in percent, in percent."""
    area, before = 0.0, 0.0
    named = {str(number): point for number, point in enumerate(points)}
    for name in front(named):
        first, second = named[name]
        # From left to right: up to this point's R@1 its ARS can be had.
        area += (first - before) * second
        before = first
    return area / 100


def hypervolumes(finalists: Sequence[FinalistResult], defense: str) -> dict[int, float]:
    """The hypervolume of a defense's finalists, by seed."""
    own = [one for one in finalists if one.defense == defense]
    seeds = own[0].scores[RETRIEVAL]
    return {
        seed: hypervolume([(one.scores[RETRIEVAL][seed], one.scores[ROBUSTNESS][seed]) for one in own])
        for seed in seeds
    }


def mean_of(values: Mapping[int, float]) -> Mean:
    """The mean over seeds and its interval."""
    numbers = np.array(list(values.values()))
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Mean(mean, None, None)
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    half = float(stdtrit(len(numbers) - 1, (1 + CONFIDENCE) / 2)) * error
    return Mean(mean, mean - half, mean + half)


def matches(finalists: Sequence[FinalistResult], reference: str) -> list[Match]:
    """The reference against every finalist of another defense, at equal or higher R@1.

    Of the finalists with enough R@1 the one is taken that was best on the held-out classes, because the best on the
    test classes would be the luckiest there. The intervals are widened for the number of matches (Bonferroni).

    Args:
        finalists: of all defenses.
        reference: name of the defense that is compared with all others.
    """
    own = [one for one in finalists if one.defense == reference]
    others = [one for one in finalists if one.defense != reference]
    found = []
    for other in others:
        able = [one for one in own if one.mean(RETRIEVAL) >= other.mean(RETRIEVAL)]
        if not able:
            found.append(Match(other, None, None, None))
            continue
        best = max(able, key=lambda one: one.validation.get(ROBUSTNESS, 0.0))
        robustness, retrieval = (
            paired_difference(best.scores[name], other.scores[name], len(others)) for name in (ROBUSTNESS, RETRIEVAL)
        )
        found.append(Match(other, best, robustness, retrieval))
    return found


def rows(finalists: Sequence[FinalistResult]) -> list[dict[str, str]]:
    """Every finalist as text, defense by defense, from the highest ARS."""
    order = list(dict.fromkeys(one.defense for one in finalists))
    ranked = sorted(finalists, key=lambda one: (order.index(one.defense), -one.mean(ROBUSTNESS)))
    fronts = {name for defense in order for name in _front_of([one for one in finalists if one.defense == defense])}
    return [
        {
            "defense": one.defense,
            "trial": str(one.trial),
            **{score: f"{one.mean(score):.1f} ± {one.deviation(score):.1f}" for score in SHOWN},
            "M passes": f"{np.mean(list(one.costs.values())):.2f}",
            "front": "yes" if one.name in fronts else "",
            "ended": f"{len(one.scores[ROBUSTNESS]) - len(one.ends)} finished"
            + "".join(f", {end}" for end in one.ends),
        }
        for one in ranked
    ]


def volume_rows(finalists: Sequence[FinalistResult], reference: str) -> list[dict[str, str]]:
    """The hypervolume of every defense, and how far it is above the reference's, paired by seed."""
    defenses = list(dict.fromkeys(one.defense for one in finalists))
    by_seed = {defense: hypervolumes(finalists, defense) for defense in defenses}
    ranked = sorted(defenses, key=lambda one: -mean_of(by_seed[one]).mean)
    return [
        {
            "defense": defense,
            "hypervolume": str(mean_of(by_seed[defense])),
            f"against {reference}": ""
            if defense == reference
            else str(paired_difference(by_seed[defense], by_seed[reference]) or "one seed"),
        }
        for defense in ranked
    ]


def match_rows(finalists: Sequence[FinalistResult], reference: str) -> list[dict[str, str]]:
    """The matches as text."""
    return [
        {
            "against": match.other.name,
            "its R@1": f"{match.other.mean(RETRIEVAL):.1f}",
            "its ARS": f"{match.other.mean(ROBUSTNESS):.1f}",
            "reference": "" if match.reference is None else match.reference.name,
            "ARS": "" if match.robustness is None else str(match.robustness),
            "R@1": "" if match.retrieval is None else str(match.retrieval),
            "verdict": match.verdict,
        }
        for match in matches(finalists, reference)
    ]


def sentence(finalists: Sequence[FinalistResult], reference: str) -> str:
    """What the tournament says, in one or two plain sentences."""
    found = matches(finalists, reference)
    counts = {verdict: sum(match.verdict == verdict for match in found) for verdict in {m.verdict for m in found}}
    ahead, behind = counts.get("reference ahead", 0), counts.get("other ahead", 0)
    open_, without = counts.get("cannot be told apart", 0), counts.get("no finalist with this R@1", 0)
    said = (
        f"At equal or higher R@1, {reference} has a higher ARS than {ahead} of {len(found)} finalists of the other "
        f"defenses, a lower one than {behind}, and cannot be told from {open_} (paired over the seeds, 95 %)."
    )
    if without:
        said += f" {without} retrieve better than every finalist of {reference}."
    if counts.get("one seed says nothing of the noise"):
        said = (
            f"With one seed nothing can be said about the noise; {reference} is compared with {len(found)} finalists."
        )
    return said


def _front_of(finalists: Sequence[FinalistResult]) -> list[str]:
    return front({one.name: (one.mean(RETRIEVAL), one.mean(ROBUSTNESS)) for one in finalists})
