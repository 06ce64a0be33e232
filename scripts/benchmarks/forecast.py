"""Stopping by a forecast of the final score: tried for the search, and not better than early successive halving."""

import math

import numpy as np
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

CERTAINTY = 0.95
"""Probability that a trial which the forecast ends would not have become the best."""


class ForecastPruner(BasePruner):
    """Ends a trial that will hardly become the best, by what finished trials made of the same number of epochs.

    A finished trial shows how much its score changed from an epoch to the last one. The mean of these changes forecasts
    a running trial's final score, and their spread says how far the forecast may be off: it holds the noise of both
    scores and all differences between learning curves. A trial ends when even the upper end of its forecast lies below
    the best finished trial, and never because of a difference that is smaller than the noise.
    """

    def __init__(self, finished: int, grace: int) -> None:
        """Forecast.

        Args:
            finished: trials that must have finished before.
            grace: epochs that every trial gets.
        """
        self._finished, self._grace = max(2, finished), grace

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to end a trial at its newest epoch."""
        epoch = trial.last_step
        if epoch is None or epoch < self._grace:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        pairs = [(one.intermediate_values[epoch], one.value) for one in complete if epoch in one.intermediate_values]
        if len(pairs) < self._finished:
            return False
        changes = np.array([final - then for then, final in pairs])
        error = float(changes.std(ddof=1)) * math.sqrt(1 + 1 / len(changes))
        reach = float(stats.t.ppf(CERTAINTY, len(changes) - 1)) * error
        best = max(final for _, final in pairs)
        return trial.intermediate_values[epoch] + float(changes.mean()) + reach < best
