"""One trial as it stands, and which of several is the best."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from colotride.errors import SearchError
from colotride.tune.plan import dominates
from colotride.tune.space import Values


@dataclass
class TrialRow:
    """One trial as it stands."""

    number: int
    """Counted from 1, in the order in which they were drawn."""
    values: Values
    status: str = "running"
    """running, finished, stopped (early, by comparison), collapsed, nan, diverged, out-of-memory or error."""
    epoch: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    """Validation scores of the last reported epoch: R@1, mAP, ERS, ARS."""
    curve: list[float] = field(default_factory=list)
    """The first objective at every reported epoch."""
    costs: list[float] = field(default_factory=list)
    """Millions of image passes behind the trial at every reported epoch."""
    seconds: float = 0.0
    """Training and validation, without start-up."""
    reason: str = ""
    """Why a trial did not finish."""

    @property
    def cost(self) -> float:
        """Millions of image passes, each with its way back in a perturbation."""
        return self.costs[-1] if self.costs else 0.0


def pareto_front(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[TrialRow]:
    """The finished trials that no other finished one dominates, in the order of their numbers."""
    finished = [row for row in rows if row.status == "finished"]
    points = [[row.scores[name] for name in objectives] for row in finished]
    return [
        row for row, point in zip(finished, points, strict=True) if not any(dominates(other, point) for other in points)
    ]


def best_first(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[TrialRow]:
    """The finished trials from the best to the worst.

    With several objectives those of the Pareto front come first; among them, and among the others, the one with the
    highest sum of objectives, each measured from its worst (0) to its best (1) finished value.

    Raises:
        SearchError: no trial finished; the message says what became of them.
    """
    finished = [row for row in rows if row.status == "finished"]
    if not finished:
        ends = ", ".join(sorted({f"{row.status} ({row.reason})" if row.reason else row.status for row in rows}))
        raise SearchError(f"none of the {len(rows)} trials reached its last epoch: {ends or 'none was started'}")
    bounds = {
        name: (min(row.scores[name] for row in finished), max(row.scores[name] for row in finished))
        for name in objectives
    }

    def level(row: TrialRow) -> float:
        return sum((row.scores[name] - low) / (high - low or 1.0) for name, (low, high) in bounds.items())

    front = {row.number for row in pareto_front(finished, objectives)}
    return sorted(finished, key=lambda row: (row.number not in front, -level(row), row.number))
