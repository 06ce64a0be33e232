"""The trials that were trained to the end, as points of the space."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from colotride.tune.parameters import AnyParameter, Choice

ENOUGH = 4
"""Finished trials below which importance and a surface would be invented rather than found."""


@dataclass(frozen=True)
class Point:
    """A trial that reached its last epoch."""

    number: int
    """Counted from 1, as in the tables."""
    values: Mapping[str, Any]
    """By parameter; one that did not apply is missing."""
    objectives: tuple[float, ...]


def finished_points(study: optuna.Study) -> list[Point]:
    """The trials of a study that were trained to the end, in their order."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [Point(trial.number + 1, trial.params, tuple(trial.values)) for trial in trials]


def scaled(parameter: AnyParameter, value: Any) -> float:
    """Where a value lies between the ends of its parameter: 0 to 1, logarithmically where it is searched so."""
    if isinstance(parameter, Choice):
        return parameter.values.index(value) / max(1, len(parameter.values) - 1)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        return float(np.log(value / low) / np.log(high / low))
    return (value - low) / (high - low)
