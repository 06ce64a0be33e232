"""What a tournament searches, and what it refuses."""

import pytest

from colotride.errors import ConfigurationError, SearchError
from colotride.presets import preset, with_defense
from colotride.tournaments.page import draw_fronts
from colotride.tournaments.plan import keep_plan, new_tournament
from colotride.tournaments.results import rows
from colotride.tournaments.run import TOLERANCE, _calibrate, _final, chosen
from colotride.tracking.export import Tracker
from colotride.training.records import EpochRecord, Outcome
from colotride.tune.final_runs import FinalRun
from colotride.tune.records import TrialRecord
from colotride.tune.resources import TrialResources
from tests.tune.searches import reported

DIGITS = preset("digits")


def test_every_defense_is_searched_in_its_own_space_with_the_same_adversary():
    plan = new_tournament(DIGITS, defenses=("colo-tride", "act", "hm"), trials=5, seed=3)
    searches = {name: plan.search_of(name, 96) for name in plan.defenses}
    names = {name: {one.name for one in search.space.parameters} for name, search in searches.items()}
    assert names["act"] < names["hm"]
    assert names["hm"] - names["act"] == {"intra_class_coefficient"}
    assert {"attention_factor", "top_ranked_coefficient", "assist_disabled_fraction"} <= names["colo-tride"]
    for search in searches.values():
        varied = {one.path for one in search.space.parameters}
        assert not varied & {"pgd.steps", "pgd.step_size", "pgd.epsilon", "defense.phases"}
        assert {"training.learning_rate", "training.clean_weight", "training.loss"} <= varied
        assert (search.trials, search.seed, search.base.data.pairs_per_epoch) == (5, 3, 96)
        assert search.objectives == ("R@1", "ARS")
        assert search.base.data.hold_out_validation
    assert [searches[name].base.pgd.steps for name in ("colo-tride", "act", "hm")] == [8, 32, 32]
    equal = new_tournament(DIGITS, steps=16)
    assert {equal.run_of(name).pgd.steps for name in equal.defenses} == {16}


def test_the_others_are_compared_with_colo_tride_or_with_the_first():
    assert new_tournament(DIGITS, defenses=("act", "colo-tride")).reference == "colo-tride"
    assert new_tournament(DIGITS, defenses=("act", "hm")).reference == "act"


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"defenses": ("colo-tride",)}, "--defenses"),
        ({"defenses": ("act", "act")}, "names act twice"),
        ({"defenses": ("act", "atc")}, "act"),
        ({"trials": 0}, "--trials 0"),
        ({"cost": -1.0}, "--cost -1"),
    ],
)
def test_choices_that_make_no_sense_are_refused_in_one_line(choices, line):
    with pytest.raises(ConfigurationError, match=line) as caught:
        new_tournament(DIGITS, **choices)
    assert "\n" not in str(caught.value)


def test_a_base_whose_settings_are_another_defenses_is_refused():
    with pytest.raises(ConfigurationError, match="one of act, whose authors' settings would reach") as caught:
        new_tournament(with_defense(DIGITS, "act"))
    assert "\n" not in str(caught.value)


def test_a_folder_belongs_to_one_tournament(tmp_path):
    plan = new_tournament(DIGITS, trials=5)
    keep_plan(plan, tmp_path)
    keep_plan(plan, tmp_path)
    before = (tmp_path / "tournament.json").read_bytes()
    with pytest.raises(SearchError, match="another trials and finalists"):
        keep_plan(new_tournament(DIGITS, trials=6, finalists=1), tmp_path)
    assert (tmp_path / "tournament.json").read_bytes() == before
    (tmp_path / "tournament.json").write_text("{")
    with pytest.raises(SearchError, match="cannot be read"):
        keep_plan(plan, tmp_path)


def test_the_finalists_are_those_that_add_most_to_the_front():
    scores = {2: (50, 20), 3: (51, 21), 4: (80, 5), 5: (20, 40), 6: (10, 10)}
    records = [
        reported(TrialRecord(number, {}, DIGITS), 1, ars, "finished", r1=r1) for number, (r1, ars) in scores.items()
    ]
    lost = reported(TrialRecord(7, {}, DIGITS), 1, 0, "collapsed")
    # 51 x 21 is the largest; then 20 x 40 adds 380, 80 x 5 adds 145, and the rest nothing.
    assert [one.number for one in chosen([lost, *records], 3)] == [3, 5, 4]
    assert [one.number for one in chosen(records[:1], 3)] == [2]
    assert chosen([lost], 3) == []


def test_what_a_run_may_cost_is_that_of_its_defense_and_a_tenth(monkeypatch, tmp_path):
    """Training takes minutes: here what each defense's batches cost is known, 100 passes and 250."""
    base = DIGITS.with_values({"training.epochs": 4, "data.pairs_per_batch": 10})
    plan = new_tournament(base, defenses=("colo-tride", "act"), cost=0.01, seeds=2)

    def calibrated(runs, resources, at_once):
        for path in runs:
            passes = {"colo-tride": 100, "act": 250}[path.name]
            epochs = [EpochRecord(number, 5 * number, 1.0, {}, {}, 5 * passes) for number in range(1, 5)]
            yield path, Outcome("finished", "", epochs)

    monkeypatch.setattr("colotride.tournaments.run.train_each", calibrated)
    cost, pairs, limits = _calibrate(plan, tmp_path, TrialResources(), 1, lambda _: None)
    # Ten thousand passes in four epochs: 25 batches of ten pairs each, or 10.
    assert (cost, pairs) == (0.01, {"colo-tride": 250, "act": 100})
    assert limits == pytest.approx(dict.fromkeys(plan.defenses, 0.01 * TOLERANCE))
    assert plan.search_of("act", 100, max_cost=limits["act"]).max_cost == limits["act"]

    allowed = {}

    def trained(configs, resources, at_once, limits):
        for path in configs:
            for passes in (5000, 4000, 3000):
                limits[path].add(EpochRecord(1, 1, 1.0, {}, {}, passes))
            allowed[path.parent.name] = limits[path].spent
            yield path, FinalRun("nan", "", [], None)

    monkeypatch.setattr("colotride.tournaments.run.train_and_evaluate_each", trained)
    monkeypatch.setattr("colotride.tournaments.run._record", lambda *_: None)
    finals = [("act", TrialRecord(number, {}, base)) for number in (1, 2)]
    found = _final(plan, tmp_path, finals, limits, TrialResources(), 1, object.__new__(Tracker), lambda _: None)
    assert allowed == {"act-001": False, "act-002": True}, "as its authors use it, a defense is trained to its end"
    # All its runs are lost, and it is in the table and in the picture all the same.
    assert [row["mAP"] for row in rows(found)] == ["0.0 ± 0.0"] * 2
    draw_fronts(found)
