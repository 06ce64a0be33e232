import copy
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from scipy import stats

from colotride.training.records import EpochRecord, Outcome
from colotride.tune.race import Contender, _behind, race, race_rows, raced_first, run_race
from colotride.tune.records import TrialRecord, best_first
from colotride.tune.resources import SearchFolders, TrialResources
from scripts.benchmarks.forecast import ForecastPruner
from tests.tune.searches import BASE, plan_of, search


def record(number, ars):
    return TrialRecord(number, {}, BASE, "finished", "", (EpochRecord(9, 9, 1.0, {}, {"ARS": float(ars)}),))


def races(scores, rounds):
    """A race whose repetitions score what is listed by trial and seed, and the repetitions that it asked for."""
    asked = []

    def repeat(wanted):
        asked.append([(one.number, seed) for one, seed in wanted])
        for one, seed in reversed(wanted):
            yield one.number, seed, scores[one.number][seed]

    ranked = [record(number, values[0]) for number, values in scores.items()]
    return race(ranked, "ARS", range(rounds + 1), repeat), asked


def test_whoever_was_only_lucky_is_overtaken():
    found, asked = races({1: [60, 50, 51], 2: [59, 57, 58], 3: [58, 52, 50]}, 2)
    assert found[0].record.number == 2
    assert found[0].scores == {0: 59.0, 1: 57.0, 2: 58.0}
    assert asked[0] == [(1, 1), (2, 1), (3, 1)]
    assert raced_first([record(1, 60), record(2, 59), record(9, 58.5), record(3, 58)], found)[0].number == 2
    assert [one.number for one in raced_first([record(1, 1), record(9, 0)], [])] == [1, 9]


def test_a_contender_that_falls_behind_by_more_than_the_noise_is_not_repeated_again():
    clear, asked = races({1: [60, 61, 60.5], 2: [59.5, 61.2, 60.4], 3: [50, 51.02, 50]}, 2)
    assert asked[1] == [(1, 2), (2, 2)], "what all seeds share is no noise"
    assert [one.record.number for one in clear] == [1, 2, 3]
    assert race_rows(clear)[-1] == {
        "trial": "3",
        "seed 0": "50.0",
        "seed 1": "51.0",
        "seed 2": "dropped",
        "mean": "50.5",
    }


def test_one_that_remains_alone_is_not_repeated():
    _, asked = races({1: [60, 61, 60.5], 2: [40, 41.01, 40]}, 2)
    assert asked == [[(1, 1), (2, 1)]]


def test_the_noise_is_that_of_a_two_way_analysis_of_variance():
    table = np.random.default_rng(0).normal(50, 1, (4, 3)) + np.array([0.0, 5.0, -5.0])
    table[2] -= 2.0
    contenders = [Contender(record(row, 0), dict(enumerate(map(float, values)))) for row, values in enumerate(table)]
    total = 0.0
    for row in range(4):
        for column in range(3):
            total += (table[row, column] - table[row].mean() - table[:, column].mean() + table.mean()) ** 2
    reach = stats.t.ppf(0.95, 6) * (total / 6) ** 0.5 * (2 / 3) ** 0.5
    means = table.mean(axis=1)
    behind = {row for row in range(4) if means.max() - means[row] > reach}
    assert {one.record.number for one in _behind(contenders)} == behind
    assert 2 in behind


def test_a_race_finds_the_better_one_more_often_than_a_single_score_does():
    rng = np.random.default_rng(1)
    right = {"single": 0, "race": 0}
    for _ in range(300):
        scores = {number: (number == 1) * 1.0 + rng.normal(0, 1, 3) for number in (1, 2, 3)}
        right["single"] += max(scores, key=lambda number: scores[number][0]) == 1
        right["race"] += races(scores, 2)[0][0].record.number == 1
    assert right["race"] > right["single"] + 30


@pytest.mark.parametrize(
    ("trials", "asked", "objectives", "contenders"),
    [(16, 3, ("ARS",), 3), (8, 3, ("ARS",), 2), (7, 3, ("ARS",), 1), (16, 0, ("ARS",), 0), (16, 3, ("ARS", "R@1"), 0)],
)
def test_at_most_a_quarter_of_the_trials_race(trials, asked, objectives, contenders):
    assert plan_of(trials=trials, race=asked, objectives=objectives).contenders == contenders


def forecast_study(curves):
    """A study with finished trials of these scores by epoch."""
    study = optuna.create_study(direction="maximize")
    for curve in curves:
        values = dict(enumerate(curve, 1))
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=curve[-1], intermediate_values=values))
    return study


def running(study, *scores):
    trial = study.ask()
    for epoch, value in enumerate(scores, 1):
        trial.report(value, epoch)
    return study._storage.get_trial(trial._trial_id)


def test_a_trial_ends_when_even_the_upper_end_of_its_forecast_is_below_the_best():
    curves = [[10.0, 20.0, 31.0], [12.0, 22.0, 30.0], [8.0, 18.0, 29.5], [9.0, 21.0, 32.0], [11.0, 19.0, 28.0]]
    study = forecast_study(curves)
    changes = np.array([one[2] - one[1] for one in curves])
    reach = stats.t.ppf(0.95, 4) * changes.std(ddof=1) * (1 + 1 / 5) ** 0.5
    limit = 32.0 - changes.mean() - reach
    pruner = ForecastPruner(finished=5, grace=2)
    assert pruner.prune(study, running(study, 10.0, limit - 0.01))
    assert not pruner.prune(study, running(study, 10.0, limit + 0.01))
    assert not pruner.prune(study, running(study, 0.0)), "not within its grace"
    assert not ForecastPruner(finished=6, grace=2).prune(study, running(study, 10.0, 0.0)), "not by few examples"


def test_no_trial_ends_because_of_a_difference_within_the_noise():
    # In one search ASHA stopped trials at 15.71 and 15.72 against 15.75.
    study = forecast_study([[15.0, 15.75, 20.0], [15.2, 15.7, 21.5], [14.8, 15.6, 19.0], [15.1, 15.5, 20.5]])
    pruner = ForecastPruner(finished=3, grace=2)
    assert not pruner.prune(study, running(study, 15.0, 15.71))
    assert pruner.prune(study, running(study, 5.0, 5.0))


def test_the_repetitions_of_a_race_may_cost_what_a_trial_may(monkeypatch, tmp_path):
    """Training takes minutes: here each repetition's epochs are known at once."""
    plan, asked, places = plan_of(max_cost=0.45, race=2, race_seeds=1), [], SearchFolders(tmp_path, "file:///copy")
    ranked = best_first(search(trials=16), ["ARS"])

    def known(configs, resources, at_once, limits, folders):
        assert folders == places, "where trials keep theirs"
        for path, config in configs.items():
            done, limit = [], copy.copy(limits)
            for epoch in ranked[0].history:
                done.append(epoch)
                limit.add(epoch)
                if limit.spent:
                    break
            asked.append((config.seed, len(done)))
            yield path, Outcome("finished", "", done)

    monkeypatch.setattr("colotride.tune.race.train_each", known)
    recorded = SimpleNamespace(repeated=lambda *_: None)
    found = run_race(plan, places, ranked, TrialResources(), 1, recorded, lambda _: None)
    # An epoch costs 0.1: a fifth one would be beyond 0.45.
    assert asked == [(plan.base.seed + 1, 4)] * 2
    assert all(set(one.scores) == {plan.base.seed, plan.base.seed + 1} for one in found)
