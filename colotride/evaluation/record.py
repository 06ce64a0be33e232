"""The numbers of an evaluation: scores with intervals, and the values of every single image behind them."""

from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from colotride.evaluation.fairness import class_scores
from colotride.evaluation.intervals import Interval
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.scores import Resistance

Record = TypeVar("Record", bound="EvaluationRecord")

CLUSTER = "cluster"
"""Of the values per image, the prefix of the clusters, one column per start of k-means."""


@dataclass(frozen=True)
class CurvePoint:
    """The scores of the same queries at one radius of a robustness curve; see `EvaluationRecord`."""

    epsilon: float
    attacked: dict[str, float]
    resistance: dict[str, float]
    ERS: float
    ARS: float
    intervals: dict[str, Interval]
    strict: dict[str, float] = field(default_factory=dict)
    """Of the strong protocol: the scores of the strict one on the same queries at this radius."""

    @property
    def gap(self) -> dict[str, float]:
        """Of the strong protocol: how much higher ERS, ARS and the parts of ARS are in the strict one."""
        found = {"ERS": self.ERS, "ARS": self.ARS} | {f"ARS {name}": one for name, one in self.resistance.items()}
        return {name: self.strict[name] - one for name, one in found.items() if name in self.strict}


@dataclass(frozen=True)
class Convergence:
    """Of the strong protocol: what every score after the attacks was after fewer passes."""

    passes: list[int]
    """Forward and backward passes per attack and query."""
    scores: dict[str, list[float]]
    """By name, one for each of the passes."""
    strict_passes: int
    """Those that the attacks of the strict protocol take, which are part of the strong ones."""
    strict: dict[str, float]
    """The scores of the strict protocol on the same queries."""

    @property
    def gap(self) -> dict[str, float]:
        """How much higher every score is in the strict protocol."""
        return {name: self.strict[name] - values[-1] for name, values in self.scores.items()}


@dataclass(frozen=True)
class EvaluationRecord:
    """The numbers of one evaluation; percentages and ranks are in 0..100."""

    protocol: str
    images: int
    """Size of the gallery."""
    queries: int
    """Images attacked by each attack."""
    steps: int
    epsilon: float
    step_size: float
    seed: int
    benign: dict[str, float]
    """R@k, mAP, mAP@R, NMI over the whole gallery."""
    attacked: dict[str, float]
    """The ten numbers of Table 1, after the attacks; and those of extra attacks."""
    resistance: dict[str, float]
    """The eight numbers of Table 2."""
    ERS: float
    ARS: float
    seconds: float
    intervals: dict[str, Interval]
    """95 % bootstrap interval of every score, by its name in `scores`; empty where none were asked for."""
    per_query: dict[str, dict[str, Tensor]] = field(repr=False, compare=False)
    """Values of every attacked image: by attack number, its `query`, `target`, `before` and `after`; on the CPU."""
    per_image: dict[str, Tensor] = field(repr=False, compare=False)
    """Of every image of the gallery: its `label`, its `cluster 0`, ... by start of k-means, its part in each benign score."""
    norm: str = "linf"
    """How epsilon is measured."""
    resistance_definition: Resistance = "mean of ratios"
    """How the ranks' resistances, and so ARS, are averaged; numbers of different definitions are not comparable."""
    curve: tuple[CurvePoint, ...] = ()
    """Where several radii were asked for: all of them in increasing order, the last one being that of the scores."""
    convergence: Convergence | None = None
    """Where the protocol is strong."""
    measurements: tuple[Measurement, ...] = ()
    """What was measured beside the attacks: always the scores per class, and what was asked for."""

    def class_scores(self) -> dict[str, Tensor]:
        """Every score of every class that has an attacked image; see `fairness.class_scores`."""
        before, after = ({name: one[when] for name, one in self.per_query.items()} for when in ("before", "after"))
        queries = next(iter(self.per_query.values()))["query"]
        labels = self.per_image["label"]
        benign = {n: v for n, v in self.per_image.items() if n != "label" and not n.startswith(CLUSTER)}
        return class_scores(benign, labels, before, after, queries, self.resistance_definition)

    def scores(self) -> dict[str, float]:
        """Every score under its name in the paper's tables; resistances are named `ARS CA+`, ..."""
        named = {f"ARS {name}": value for name, value in self.resistance.items()}
        return {**self.benign, **self.attacked, **named, "ERS": self.ERS, "ARS": self.ARS}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the values of single images."""
        plain = asdict(self)
        del plain["per_query"], plain["per_image"]
        return plain

    @classmethod
    def from_dict(cls: type[Record], plain: dict[str, Any]) -> Record:
        """The result that `to_dict` wrote."""
        read = dict(plain)
        read["intervals"] = _intervals(plain["intervals"])
        read["curve"] = tuple(
            CurvePoint(**(point | {"intervals": _intervals(point["intervals"])})) for point in plain.get("curve", ())
        )
        if plain.get("convergence"):
            read["convergence"] = Convergence(**plain["convergence"])
        read["measurements"] = tuple(Measurement.from_dict(one) for one in plain.get("measurements", ()))
        return cls(**read, per_query={}, per_image={})


def _intervals(plain: dict[str, Any]) -> dict[str, Interval]:
    return {name: (low, high) for name, (low, high) in plain.items()}
