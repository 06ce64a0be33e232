"""How much each parameter matters, by fANOVA (Hutter et al., 2014)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from colotride.tune.parameters import AnyParameter, Choice
from colotride.tune.points import ENOUGH, Point, scaled
from colotride.tune.space import Space


@dataclass(frozen=True)
class Importance:
    """How much of an objective's variance a parameter explains."""

    name: str
    share: float
    """Of the variance that single parameters explain, in [0, 1]."""
    trials: int
    """On which it rests: fewer than all where the parameter applies in some trials only."""


def importances(points: Sequence[Point], space: Space, objective: int) -> list[Importance]:
    """The importance of each parameter for an objective, the greatest first; empty with too few trials, or alike ones.

    Variance is taken over the space as it is searched: evenly in the logarithm where the parameter is. (Optuna's
    evaluator alone takes it evenly in the value, so that of an attention factor from 0.5 to 50 only what lies above 5
    would count.) A parameter that applies in some trials only is assessed within those, beside all that always apply.

    Args:
        points: the finished trials.
        space: that was searched.
        objective: which one, counted from 0.
    """
    if len(points) < ENOUGH or len({point.objectives[objective] for point in points}) == 1:
        return []
    having = {one.name: [point for point in points if one.name in point.values] for one in space.parameters}
    always = [one for one in space.parameters if len(having[one.name]) == len(points)]
    shares = _fanova(points, always, objective)
    found = [Importance(one.name, shares[one.name], len(points)) for one in always]
    for one in space.parameters:
        if one not in always and len(having[one.name]) >= ENOUGH:
            share = _fanova(having[one.name], [*always, one], objective)[one.name]
            found.append(Importance(one.name, share, len(having[one.name])))
    return sorted(found, key=lambda one: -one.share)


def _fanova(points: Sequence[Point], parameters: Sequence[AnyParameter], objective: int) -> Mapping[str, float]:
    if len({point.objectives[objective] for point in points}) == 1:
        return {one.name: 0.0 for one in parameters}
    with _quiet():
        study = optuna.create_study(direction="maximize")
    ranges = {one.name: _range(one) for one in parameters}
    for point in points:
        places = {
            one.name: point.values[one.name]
            if isinstance(one, Choice)
            else min(1.0, max(0.0, scaled(one, point.values[one.name])))
            for one in parameters
        }
        study.add_trial(
            optuna.trial.create_trial(params=places, distributions=ranges, value=point.objectives[objective])
        )
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=list(ranges))
    return {name: float(share) for name, share in shares.items()}


def _range(parameter: AnyParameter) -> BaseDistribution:
    return CategoricalDistribution(parameter.values) if isinstance(parameter, Choice) else FloatDistribution(0, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """No line on standard error for a study that nobody else sees."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
