"""Searches that take no time: real studies and records of a cheap function, ended in every way in which trials end."""

import dataclasses
import math

import optuna

from colotride.presets import preset
from colotride.training.records import EpochRecord
from colotride.tune.plan import SearchPlan
from colotride.tune.records import TrialRecord
from colotride.tune.space import build_space

BASE = preset("digits").with_values({"training.epochs": 9})
EPOCHS = 9
SPACE = build_space(BASE, groups=["weighting"])
REASON = "mean d(A,N) 0.0100 is below 0.05 & the loss is that of a constant <embedding>"


def small_plan(**changes):
    """Of a search over the default space on digits, whose trials have 12 epochs."""
    base = preset("digits").with_values({"training.epochs": 12})
    space = build_space(base)
    return SearchPlan(base=base, space=space, initial_points=(space.values_of(base),), **{"trials": 4, **changes})


def reported(record, number, value, status="running", cost=0.5, r1=50.0):
    """A trial's record as its process reports it after an epoch; a lost model has no validation."""
    scores = {"ARS": float(value), "ERS": value / 2, "R@1": r1, "mAP": 10.0}
    lost = status in ("collapsed", "nan", "diverged")
    before = tuple(one for one in record.history if one.epoch < number)
    epoch = EpochRecord(number, 8 * number, 2.0, {"loss": 0.1}, {} if lost else scores, round(cost * 1e6))
    reason = "" if status == "running" else "why"
    return dataclasses.replace(record, status=status, reason=reason, history=(*before, epoch))


def score(values):
    """A robustness that depends on the attention factor most, then on the steps, and hardly on anything else."""
    return (
        60
        - 12 * abs(math.log10(values["attention_factor"] / 8))
        + 5 * math.log2(values["pgd_steps"])
        - 8 * values["assist_disabled_fraction"]
    )


def retrieval(values):
    """R@1 suffers from large steps, which do nothing else."""
    return 90 - 40 * values["step_size_over_epsilon"] - 4 * math.log2(values["pgd_steps"])


def search(trials=40, seed=3, space=SPACE, value_of=score):
    """Records of a random search: of every eight trials one collapses, one raises and two are stopped at epoch 3."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    records = []
    for number in range(trials):
        values = space.suggest(study.ask())
        record = TrialRecord(number + 1, values, space.configure(BASE, values))
        turn, value = number % 8, value_of(values)
        if turn == 5:
            records.append(record.with_end("error", "RuntimeError: out of memory"))
        elif turn == 6:
            records.append(end(record, "collapsed", 2, 0.0, REASON))
        elif turn in (2, 3):
            # Early epochs are measured with less: a stopped trial looks better there than any finished one.
            records.append(end(record, "stopped", 3, value + 30))
        else:
            records.append(end(record, "finished", EPOCHS, value))
    return records


def end(record, status, epochs, value, reason=""):
    """The record after this many epochs of one score; a lost model has no validation at its end."""
    r1 = retrieval(record.values) if "pgd_steps" in record.values else 50.0
    scores = {"R@1": r1, "mAP": r1 / 2, "ERS": value / 2 + r1 / 3, "ARS": value}
    lost = status in ("collapsed", "nan", "diverged")
    history = tuple(
        EpochRecord(epoch, epoch, 0.5, {}, {} if lost and epoch == epochs else scores, 100_000)
        for epoch in range(1, epochs + 1)
    )
    return dataclasses.replace(record, status=status, reason=reason, history=history)


def plan_of(space=SPACE, objectives=("ARS",), **changes):
    """The plan of such a search."""
    stopping = "asha" if len(objectives) == 1 else "none"
    return SearchPlan(base=BASE, space=space, objectives=objectives, stopping=stopping, **{"trials": 40, **changes})
