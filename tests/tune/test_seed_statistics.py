from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from colotride.errors import SearchError
from colotride.tune import final_evaluation
from colotride.tune.final_evaluation import (
    Finalist,
    check_verdict_seeds,
    decided,
    evaluate_finalists,
    finalists_of,
    register_winner,
    verdict_sentences,
)
from colotride.tune.final_runs import FinalRun
from colotride.tune.plan import new_plan, save_plan
from colotride.tune.records import TrialRecord, best_first
from colotride.tune.resources import SearchFolders, TrialResources
from colotride.tune.seed_statistics import (
    SeedStatistics,
    paired_difference,
    planned_looks,
    verdict_rows,
    verdict_sentence,
)
from tests.tune.searches import BASE, plan_of, search


def by_seed(*values, first=0):
    return dict(enumerate(map(float, values), first))


def statistics(name, ars, r1=None, lost=()):
    scores = dict.fromkeys(("R@1", "mAP", "ERS", "ARS"), by_seed(*ars))
    return SeedStatistics(name, scores | {"R@1": by_seed(*(r1 or ars))}, lost)


def test_the_interval_is_that_of_the_paired_t_test():
    one, other = [30.0, 35.0, 32.5, 31.0], [28.5, 33.0, 31.5, 30.5]
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    found = paired_difference(by_seed(*one), by_seed(*other))
    assert (found.low, found.high, found.seeds) == pytest.approx((expected.low, expected.high, 4))
    assert found.beyond_noise
    unpaired = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert unpaired.low < 0, "what all configurations have in common with one seed is no noise"


def test_only_seeds_that_both_have_make_pairs():
    found = paired_difference(by_seed(1, 2, 3, first=1), by_seed(9, 0, 0, first=0))
    assert found.seeds == 2
    assert found.mean == 1.5


def test_looking_repeatedly_errs_in_at_most_five_percent():
    looks, draws = planned_looks(3, 12), np.random.default_rng(0).normal(size=(4000, 12))
    assert looks == [3, 6, 12]

    def wrong(corrected):
        count = len(looks) if corrected else 1
        found = 0
        for row in draws:
            pairs = [paired_difference(by_seed(*row[:look]), by_seed(*np.zeros(look)), count) for look in looks]
            found += any(one.beyond_noise for one in pairs)
        return found / len(draws)

    assert wrong(corrected=True) <= 0.05
    assert wrong(corrected=False) > 0.08


@pytest.mark.parametrize(
    ("first", "most", "looks"), [(3, 3, [3]), (3, 6, [3, 6]), (2, 7, [2, 4, 7]), (1, 4, [1, 2, 4])]
)
def test_seeds_double_up_to_the_budget(first, most, looks):
    assert planned_looks(first, most) == looks


def test_of_a_single_seed_the_noise_is_unknown():
    default, best = statistics("default", [20.0]), statistics("best", [30.0])
    assert paired_difference(by_seed(30), by_seed(20)) is None
    rows = verdict_rows({"default": default, "best": best}, ["ARS"])
    assert rows[1]["ARS against default"] == "noise unknown (one seed)"
    assert "+10.0 ARS" in verdict_sentence(best, default, ["ARS"])
    assert "luck" in verdict_sentence(best, default, ["ARS"])


def test_the_verdict_as_text():
    default = statistics("default", [20.0, 22.0, 21.0], r1=[80.0, 80.0, 80.0])
    best = statistics("best", [40.0, 43.0, 42.0], r1=[79.0, 80.0, 82.0])
    rows = verdict_rows({"default": default, "best": best}, ["ARS"], comparisons=2)
    assert rows[0]["ARS"] == "21.0 ± 1.0"
    assert rows[0]["ARS against default"] == ""
    half = stats.t.ppf(1 - 0.025 / 2, 2) * np.std([20, 21, 21], ddof=1) / 3**0.5
    interval = f"[+{20 + 2 / 3 - half:.1f}, +{20 + 2 / 3 + half:.1f}]"
    assert rows[1]["ARS against default"] == f"+20.7 {interval}, beyond the noise"
    assert rows[1]["R@1 against default"].endswith("within the noise")
    said = verdict_sentence(best, default, ["ARS"], comparisons=2)
    assert said.startswith(f"best is better than the default: ARS +20.7 {interval} (paired over 3 seeds, 95 %).")
    assert "R@1 changes by +0.3 [" in said
    assert "worse" in verdict_sentence(default, best, ["ARS"], comparisons=2)
    same = statistics("best", [20.0, 23.0, 20.0])
    assert verdict_sentence(same, default, ["ARS"]).startswith("best cannot be told from the default: ARS")


def test_a_lost_model_scores_nothing():
    lost = FinalRun("nan", "the loss is NaN", [], None)
    for runs, said in (({0: lost, 1: lost}, "2 (nan, nan: 0)"), ({0: lost}, "1 (nan: 0)")):
        finalist = finalist_of("best", runs)
        default = statistics("default", [20.0, 22.0][: len(runs)])
        row = verdict_rows({"default": default, "best": finalist.statistics}, ["ARS"])[1]
        assert row["ARS"].startswith("0.0")
        assert row["seeds"] == said


def finalist_of(name, runs):
    return Finalist(name, BASE, Path("verdict") / name, runs)


class _Evaluated:
    def __init__(self, ars):
        self._ars = ars

    def scores(self):
        return {"R@1": 80.0, "mAP": 50.0, "ERS": self._ars, "ARS": self._ars}


def finalists_with(ars):
    return [
        finalist_of(name, {seed: FinalRun("finished", "", [], _Evaluated(value)) for seed, value in enumerate(values)})
        for name, values in ars.items()
    ]


def test_seeds_are_added_only_while_a_difference_is_within_the_noise():
    plan = plan_of(verdict_seeds="3:12")
    assert plan.looks == [3, 6, 12]
    default, better, alike = [20.0, 22.0, 21.0], [40.0, 42.0, 41.5], [20.0, 23.0, 20.0]
    assert decided(finalists_with({"default": default}), plan), "there is nothing to compare"
    assert decided(finalists_with({"default": default, "best": better}), plan)
    assert not decided(finalists_with({"default": default, "best": alike}), plan)
    both = finalists_with({"default": default, "best": better, "trial-3": alike})
    assert not decided(both, plan)
    assert [line.split()[0] for line in verdict_sentences(plan, both)] == ["best", "trial-3"]


def test_more_finalists_widen_their_intervals_as_more_looks_do():
    one, both = plan_of(verdict_seeds="3"), plan_of(verdict_seeds="3", top=2)
    assert (one.comparisons, both.comparisons, plan_of(verdict_seeds="3:12", top=2).comparisons) == (1, 2, 6)
    better = finalists_with({"default": [20.0, 22.0, 21.0], "best": [21.0, 24.0, 22.6]})
    assert decided(better, one)
    assert not decided(better, both), "an interval of 97.5 % holds zero"


def test_seeds_cannot_be_added_once_an_interval_was_seen(tmp_path):
    save_plan(plan_of(verdict_seeds="3:6"), tmp_path)
    check_verdict_seeds(plan_of(verdict_seeds="3:12"), tmp_path)
    (tmp_path / "verdict").mkdir()
    check_verdict_seeds(plan_of(verdict_seeds="3:6"), tmp_path)
    with pytest.raises(SearchError, match=r"--verdict-seeds cannot change from 3:6 to 3:12 .* leave it out"):
        check_verdict_seeds(plan_of(verdict_seeds="3:12"), tmp_path)
    save_plan(plan_of(verdict_seeds="1"), tmp_path)
    check_verdict_seeds(plan_of(verdict_seeds="3:6"), tmp_path)


@pytest.mark.parametrize("given", ["0", "-1", "6:3", "a", "3:", "1:2:3"])
def test_a_bad_number_of_seeds_is_refused(given):
    with pytest.raises(ValueError, match="should be"):
        plan_of(verdict_seeds=given)


@pytest.mark.parametrize(
    ("best", "trained"), [([40.0, 42.0, 41.5], 3), ([20.0, 23.0, 20.0], 12), ([20.0, 28.0, 25.0, 26.0, 28.0, 27.0], 6)]
)
def test_no_seed_is_trained_beyond_the_look_that_decides(monkeypatch, tmp_path, best, trained):
    """Training and evaluating take minutes: here each run's score is known at once."""
    plan, places = plan_of(verdict_seeds="3:12"), SearchFolders(tmp_path, "file:///copy")
    asked = []

    def known(configs, resources, at_once, limits, folders):
        assert folders == places, "where trials keep theirs"
        for path, config in configs.items():
            asked.append((path.parent.name, config.seed))
            scores = best if path.parent.name.startswith("trial-") else [20.0, 22.0, 21.0]
            yield path, FinalRun("finished", "", [], _Evaluated(scores[config.seed % len(scores)]))

    monkeypatch.setattr(final_evaluation, "train_and_evaluate_each", known)
    ranked = best_first(search(trials=9), ["ARS"])
    recorded = SimpleNamespace(evaluated=lambda *_: None)
    found = evaluate_finalists(plan, places, ranked, TrialResources(), 1, recorded, lambda _: None)
    assert [sorted(one.runs) for one in found] == 2 * [list(range(trained))]
    names = ("default", f"trial-{ranked[0].number}")
    assert sorted(asked) == [(name, seed) for name in names for seed in range(trained)]


def test_with_several_objectives_each_is_judged_and_counted_and_the_trade_off_is_registered():
    """The default retrieves a little better and resists less: by R@1 alone it would be the winner."""
    plan = plan_of(verdict_seeds="3", objectives=("R@1", "ARS"))
    assert plan.comparisons == 2
    default = statistics("default", [20.0, 20.5, 20.2], r1=[96.0, 96.0, 96.0])
    best = statistics("best", [45.0, 45.5, 45.2], r1=[95.0, 95.0, 95.1])
    said = verdict_sentence(best, default, plan.objectives, plan.comparisons)
    assert said.startswith("best is worse than the default: R@1 -1.0 [")
    assert "best is better than the default: ARS +25.0 [" in said
    rows = verdict_rows({"default": default, "best": best}, plan.objectives, plan.comparisons)
    assert {"R@1 against default", "ARS against default"} <= rows[1].keys()
    two = finalists_with({"default": [30.0, 31.0, 30.0], "best": [20.0, 21.0, 20.0]})
    assert decided(two, plan_of(verdict_seeds="3", objectives=("ARS",)))
    assert not decided(two, plan_of(verdict_seeds="3", objectives=("ARS", "R@1"))), "R@1 is the same"
    registered = []

    class Record:
        def register(self, key, name, folder, scores):
            registered.append((key, name))
            return "model"

    for objectives in (("R@1", "ARS"), ("ARS",)):
        assert register_winner(two, objectives, Record(), SearchFolders(Path())) == "model"
    assert registered == [("best/seed-0", "best seed 0"), ("default/seed-0", "default seed 0")]


def test_the_first_evaluation_is_that_of_the_first_seed_whichever_ended_first():
    runs = {seed: FinalRun("finished", "", [], _Evaluated(value)) for seed, value in ((1, 40.0), (0, 20.0))}
    assert finalist_of("best", runs).first_evaluation.scores()["ARS"] == 20.0


def test_a_first_trial_that_the_space_has_changed_is_not_the_default(tmp_path):
    (tmp_path / "space.yaml").write_text("parameters:\n  pgd_steps: {fixed: 4}\n")
    for file, names in ((tmp_path / "space.yaml", ["default", "best"]), (None, ["default"])):
        plan = new_plan(BASE, space_file=file)
        values = plan.initial_points[0]
        first = TrialRecord(1, values, plan.space.configure(plan.base, values))
        found = finalists_of(plan, [first])
        assert list(found) == names
        assert found[names[-1]].pgd.steps == first.config.pgd.steps
