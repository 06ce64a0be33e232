"""How much each parameter matters: fANOVA (Hutter et al., 2014) over the space as it is searched, in one fit.

Optuna's own evaluator measures variance uniformly in the value, so that of an attention factor searched from 0.5 to 50
on a logarithmic scale only values above 5 would count; and it leaves out parameters that apply in some trials only.
Here every parameter lies on its searched scale, and one fit sees them all, so that the shares add up to 1.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

ENOUGH = 4
"""With fewer finished trials an importance would be arbitrary."""


class SearchedScaleFanova(BaseImportanceEvaluator):
    """Optuna's fANOVA on searched scales, for spaces with parameters that do not apply in every trial."""

    def evaluate(
        self,
        study: optuna.Study,
        params: list[str] | None = None,
        *,
        target: Callable[[FrozenTrial], float] | None = None,
    ) -> dict[str, float]:
        """Shares of the variance that single parameters explain; 0 for all where every trial had the same score.

        A parameter that does not apply to a trial has no effect there. The fit learns this from values spread evenly
        over the parameter's range, in an order that has nothing to do with the trials' scores.

        Args:
            study: with finished trials.
            params: names; None for all that any finished trial has.
            target: what is explained; None for the value.
        """
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        goal = target or (lambda trial: float(trial.value))
        ranges = {name: one for trial in trials for name, one in trial.distributions.items()}
        names = sorted(ranges if params is None else params)
        if len({goal(trial) for trial in trials}) < 2:
            return dict.fromkeys(names, 0.0)
        columns = {name: _column(trials, name, ranges[name], seed) for seed, name in enumerate(names)}
        scales = {name: _scale(ranges[name]) for name in names}
        with quiet():
            scaled = optuna.create_study(direction="maximize")
        scaled.add_trials(
            create_trial(
                params={name: column[row] for name, column in columns.items()}, distributions=scales, value=goal(trial)
            )
            for row, trial in enumerate(trials)
        )
        return FanovaImportanceEvaluator(seed=0).evaluate(scaled, names)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging a line for a study in memory."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def position(distribution: BaseDistribution, value: float) -> float:
    """Position of a number in its range, from 0 to 1, on the logarithmic scale if it is searched on that."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        value, low, high = np.log(value), np.log(low), np.log(high)
    return float(np.clip((value - low) / (high - low), 0, 1))


def _column(trials: Sequence[FrozenTrial], name: str, range_: BaseDistribution, seed: int) -> list[object]:
    """A parameter's position in every trial; evenly spread where it does not apply."""
    choices = range_.choices if isinstance(range_, CategoricalDistribution) else None
    missing = [row for row, trial in enumerate(trials) if name not in trial.params]
    order = np.random.default_rng(seed).permutation(len(missing))
    spread = {row: (place + 0.5) / len(missing) for row, place in zip(missing, order, strict=True)}
    column: list[object] = []
    for row, trial in enumerate(trials):
        if choices is not None:
            column.append(choices[int(spread[row] * len(choices))] if row in spread else trial.params[name])
        else:
            column.append(float(spread[row]) if row in spread else position(range_, float(trial.params[name])))
    return column


def _scale(distribution: BaseDistribution) -> BaseDistribution:
    return distribution if isinstance(distribution, CategoricalDistribution) else FloatDistribution(0, 1)
