"""Whether a configuration is better than the default, or only luckier: seeds in pairs, and a test of the difference.

With one seed, two configurations start from the same weights, see the same batches and are attacked with the same
targets. Their difference therefore varies less than either score does, and it is the difference that is tested.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.table import Table
from scipy.special import stdtrit

from colotride.tune.records import SHOWN_SCORES

CONFIDENCE = 0.95
DEFAULT = "default"


@dataclass(frozen=True)
class Difference:
    """How much higher one configuration scores than another with the same seeds, with an interval."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class SeedStatistics:
    """One configuration, retrained with several seeds and evaluated on the test classes."""

    name: str
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    """By the name of the score and the seed, in percent. A lost model scores 0, as it retrieves nothing."""
    lost: tuple[str, ...] = ()
    """How the seeds ended that left no model to evaluate."""

    def mean(self, score: str) -> float:
        """Mean over the seeds."""
        return float(np.mean(list(self.scores[score].values())))

    def deviation(self, score: str) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        values = list(self.scores[score].values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def text(self, score: str) -> str:
        """Mean and standard deviation."""
        deviation = self.deviation(score)
        return f"{self.mean(score):.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")

    def above(self, other: "SeedStatistics", score: str, comparisons: int = 1) -> Difference | None:
        """How much higher this configuration scores than another one; see `paired_difference`."""
        return paired_difference(self.scores[score], other.scores[score], comparisons)


def paired_difference(one: Mapping[int, float], other: Mapping[int, float], comparisons: int = 1) -> Difference | None:
    """Mean difference over the seeds that two configurations share, with Student's interval for pairs.

    Whoever looks at the interval after some seeds, and adds seeds as long as it holds zero, is wrong more often than
    one time in twenty, and so is whoever compares several configurations. Each interval therefore gets its part of the
    five percent (Bonferroni): all of them together hold the true differences with at least 95 % probability.

    Args:
        one: score by seed.
        other: the same of the other configuration.
        comparisons: how many intervals are looked at: planned looks, times configurations.

    Returns:
        None where there are fewer than two pairs, so that the noise is unknown.
    """
    seeds = sorted(one.keys() & other.keys())
    if len(seeds) < 2:
        return None
    differences = np.array([one[seed] - other[seed] for seed in seeds])
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(seeds))
    half = float(stdtrit(len(seeds) - 1, 1 - (1 - CONFIDENCE) / (2 * comparisons))) * error
    return Difference(mean, mean - half, mean + half, len(seeds))


def planned_looks(first: int, most: int) -> list[int]:
    """After how many seeds the verdict looks at the difference: after the first ones, then each time they doubled.

    Args:
        first: seeds before the first look.
        most: seeds that the verdict may spend.
    """
    looks = [min(first, most)]
    while looks[-1] < most:
        looks.append(min(2 * looks[-1], most))
    return looks


def verdict_rows(
    statistics: Mapping[str, SeedStatistics], objectives: Sequence[str], comparisons: int = 1
) -> list[dict[str, str]]:
    """The verdict as text: every configuration's means and deviations, and its differences from the default.

    Args:
        statistics: by name; the default's is "default".
        objectives: scores that were searched for; the difference in R@1 stands beside those in them.
        comparisons: see `paired_difference`.
    """
    default = statistics[DEFAULT]
    rows = []
    for name, one in statistics.items():
        seeds = str(len(one.scores[objectives[0]])) + (f" ({', '.join(one.lost)}: 0)" if one.lost else "")
        differences = {
            f"{column} against default": ""
            if name == DEFAULT
            else _difference_text(one.above(default, column, comparisons))
            for column in dict.fromkeys((*objectives, "R@1"))
        }
        scores = {column: one.text(column) for column in SHOWN_SCORES}
        rows.append({"configuration": name, "seeds": seeds, **scores, **differences})
    return rows


def verdict_table(rows: Sequence[Mapping[str, str]], title: str) -> Table:
    """The same for a terminal, without the differences, for which it is too narrow; see `verdict_sentence`."""
    table = Table(title=title, caption="mean ± standard deviation over the seeds, %", box=box.SIMPLE_HEAD)
    columns = [column for column in rows[0] if not column.endswith("against default")]
    for column in columns:
        table.add_column(column, justify="left" if column == "configuration" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table


def verdict_sentence(
    one: SeedStatistics, default: SeedStatistics, objectives: Sequence[str], comparisons: int = 1
) -> str:
    """What the verdict says about one configuration, in a plain sentence for each objective."""
    said = [_objective_sentence(one, default, score, comparisons) for score in objectives]
    retrieval = None if "R@1" in objectives else one.above(default, "R@1", comparisons)
    return " ".join(said) + (f" R@1 changes by {retrieval}." if retrieval is not None else "")


def _objective_sentence(one: SeedStatistics, default: SeedStatistics, score: str, comparisons: int) -> str:
    found = one.above(default, score, comparisons)
    if found is None:
        mean = one.mean(score) - default.mean(score)
        return (
            f"With one seed, {one.name} scores {mean:+.1f} {score} against the default; how much of that is luck, "
            "only more seeds can say."
        )
    numbers = f"{score} {found} (paired over {found.seeds} seeds, 95 %)"
    if not found.beyond_noise:
        return f"{one.name} cannot be told from the default: {numbers}."
    return f"{one.name} is {'better' if found.mean > 0 else 'worse'} than the default: {numbers}."


def _difference_text(found: Difference | None) -> str:
    if found is None:
        return "noise unknown (one seed)"
    return f"{found}, {'beyond' if found.beyond_noise else 'within'} the noise"
