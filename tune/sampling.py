"""Optuna's samplers and pruners, as a search uses them."""

import warnings

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from colotride.tune.plan import Plan, Sampler

STARTUP_TRIALS = 6
"""Random trials before a sampler models anything, the first configurations included."""


def build_sampler(name: Sampler, seed: int) -> BaseSampler:
    """A sampler; all but the random one, which is the control, learn from the constraints of lost trials.

    Args:
        name: tpe (multivariate, in groups, with the constant liar for trials that still run), gp (Gaussian process),
            nsga2 (for several objectives) or random.
        seed: of its draws.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return GPSampler(
                n_startup_trials=STARTUP_TRIALS,
                seed=seed,
            )
        if name == "nsga2":
            return NSGAIISampler(population_size=max(4, STARTUP_TRIALS), seed=seed)
        return TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
            seed=seed,
        )


def build_pruner(plan: Plan) -> BasePruner:
    """What stops trials early: asynchronous successive halving (ASHA), the running median, or nothing."""
    if plan.stopping == "asha":
        return SuccessiveHalvingPruner(min_resource=plan.grace, reduction_factor=3)
    if plan.stopping == "median":
        return MedianPruner(n_startup_trials=STARTUP_TRIALS - 1, n_warmup_steps=plan.grace)
    return NopPruner()
