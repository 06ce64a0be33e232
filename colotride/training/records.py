"""The records of a run: one per epoch, and how it ended."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from colotride.training.health import FailureKind

Status = FailureKind | Literal["finished", "interrupted"]


@dataclass(frozen=True)
class EpochRecord:
    """What was measured in one epoch."""

    epoch: int
    """Epochs completed, this one included: the first record says 1."""
    step: int
    """Batches trained so far."""
    seconds: float
    """Wall time of training and validation in this epoch."""
    diagnostics: dict[str, float]
    """Means over the epoch's batches (Figures 3 and 4); `gradient_norm` is the largest."""
    validation: dict[str, float] = field(default_factory=dict)
    """Scores on the held-out part; empty in epochs without validation."""
    passes: int = 0
    """Images that went through the network while training in this epoch, over all processes: the epoch's cost. A pass
    inside a perturbation includes its backward pass."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: str
    """Why, with the figures, where the run did not finish."""
    history: list[EpochRecord]
    """One record per completed epoch."""

    @property
    def collapsed_at(self) -> int | None:
        """The epoch in which the model collapsed, counted from 1, or None."""
        return self.history[-1].epoch if self.status == "collapsed" else None


@dataclass
class RunningMeans:
    """Sums of the diagnostics of the running epoch, on the device: reading them would make every batch wait."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    largest_norm: Tensor | None = None
    passes: int = 0
    """Images that went through the network in this process."""

    def add(self, diagnostics: dict[str, Tensor], gradient_norm: Tensor, passes: int) -> None:
        """Add the diagnostics and the cost of a batch."""
        self.passes += passes
        for name, value in diagnostics.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        norm = gradient_norm.detach()
        # torch.maximum propagates NaN, as it must: a NaN ends the run.
        self.largest_norm = norm if self.largest_norm is None else torch.maximum(self.largest_norm, norm)

    def means(self) -> dict[str, float]:
        """Mean of each diagnostic over its batches, and the largest gradient norm."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        return means if self.largest_norm is None else means | {"gradient_norm": float(self.largest_norm)}

    def to(self, device: torch.device) -> "RunningMeans":
        """The same sums on another device."""
        return RunningMeans(**_moved(self.__dict__, device))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
