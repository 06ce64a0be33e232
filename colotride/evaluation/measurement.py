"""What a measurement beside the ten attacks reports: a small table with its meaning, its settings and its cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Figures = dict[str, float | None]
"""By column; None where there is nothing to report, such as the calls until a success that never came."""


@dataclass(frozen=True)
class Measurement:
    """One table of an evaluation."""

    name: str
    """Short, for JSON."""
    title: str
    """Heading in the report."""
    meaning: str
    """One or two sentences: what the columns are and which direction is good."""
    rows: dict[str, Figures]
    settings: dict[str, Any] = field(default_factory=dict)
    """What decided the figures."""
    calls: int = 0
    """Images that went through the network."""
    seconds: float = 0.0

    @property
    def columns(self) -> Sequence[str]:
        """Headings, the same in every row."""
        return list(next(iter(self.rows.values()), {}))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Measurement":
        """The measurement that `dataclasses.asdict` made plain."""
        return cls(**plain)


def mean(values: Tensor) -> float | None:
    """Mean in double precision; None of nothing."""
    return float(values.double().mean()) if values.numel() else None


def median(values: Tensor) -> float | None:
    """Median in double precision, the mean of the two in the middle where there are two; None of nothing."""
    return float(torch.quantile(values.double(), 0.5)) if values.numel() else None
