"""Whether a configuration is better than the default, or only luckier: several seeds, and a test of the difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.table import Table
from scipy import stats

from colotride.tune.records import SHOWN_SCORES

CONFIDENCE = 0.95
DEFAULT = "default"


@dataclass(frozen=True)
class Difference:
    """How much higher one mean is than another, with Welch's interval at 95 %."""

    mean: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class SeedStatistics:
    """One configuration, retrained with several seeds and evaluated on the test classes."""

    name: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By the name of the score, in percent: one per seed that could be evaluated."""
    lost: tuple[str, ...] = ()
    """How the other seeds ended."""

    def mean(self, score: str) -> float:
        """Mean over the seeds; 0 where no seed could be evaluated, as a lost model retrieves nothing."""
        return float(np.mean(self.scores[score])) if self.scores.get(score) else 0.0

    def deviation(self, score: str) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        values = self.scores.get(score, [])
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def text(self, score: str) -> str:
        """Mean and standard deviation."""
        deviation = self.deviation(score)
        return f"{self.mean(score):.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")


def difference(one: Sequence[float], other: Sequence[float]) -> Difference | None:
    """How much higher the first mean is; None where a side has a single value, so that the noise is unknown."""
    if min(len(one), len(other)) < 2:
        return None
    mean = float(np.mean(one) - np.mean(other))
    if np.var(one) + np.var(other) == 0:
        return Difference(mean, mean, mean)
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(CONFIDENCE)
    return Difference(mean, float(interval.low), float(interval.high))


def verdict_rows(statistics: Mapping[str, SeedStatistics], score: str) -> list[dict[str, str]]:
    """The verdict as text: every configuration's means and deviations, and its difference from the default.

    Args:
        statistics: by name; the default's is "default".
        score: of the last column.
    """
    default = statistics[DEFAULT]
    rows = []
    for name, one in statistics.items():
        seeds = str(len(one.scores.get(score, []))) + (f" ({', '.join(one.lost)} lost)" if one.lost else "")
        scores = {column: one.text(column) for column in SHOWN_SCORES}
        rows.append(
            {
                "configuration": name,
                "seeds": seeds,
                **scores,
                f"{score} against default": "" if name == DEFAULT else _difference_text(one, default, score),
            }
        )
    return rows


def verdict_table(rows: Sequence[Mapping[str, str]], title: str) -> Table:
    """The same for a terminal, without the last column, which is too wide for one; see `difference_lines`."""
    table = Table(title=title, caption="mean ± standard deviation over the seeds, %", box=box.SIMPLE_HEAD)
    columns = list(rows[0])[:-1]
    for column in columns:
        table.add_column(column, justify="left" if column == "configuration" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table


def difference_lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """How each configuration differs from the default, a line each."""
    last = list(rows[0])[-1]
    return [f"{row['configuration']}: {last} {row[last]}" for row in rows if row[last]]


def _difference_text(one: SeedStatistics, default: SeedStatistics, score: str) -> str:
    found = difference(one.scores.get(score, []), default.scores.get(score, []))
    if found is None:
        return f"{one.mean(score) - default.mean(score):+.1f}, noise unknown (one seed)"
    word = "beyond the noise" if found.beyond_noise else "within the noise"
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}] (95 %), {word}"
