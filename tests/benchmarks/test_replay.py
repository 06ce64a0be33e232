"""Tables of measured configurations, and the searches that are replayed on them."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from colotride.data.splits import load_splits
from colotride.errors import SearchError
from colotride.evaluation.evaluator import evaluate
from colotride.presets import preset
from colotride.training.trainer import Trainer
from colotride.tune.race import race
from colotride.tune.study import SearchStudy
from scripts.benchmarks.comparison import Courses, complete, replay_all, share_of_budget
from scripts.benchmarks.replay import METHODS, MeasuredSpace, Method, plan_of, replay
from scripts.benchmarks.surrogate import ForestSpace
from scripts.benchmarks.table import (
    DEFAULT_SEEDS,
    TABLES,
    Configuration,
    configurations,
    describe,
    load_table,
    measure,
    measure_table,
    run_file,
    save_table,
    thinned,
)
from tests.commands import refused, run

EPOCHS, SEEDS = 10, (0, 1, 2)


def score(values, seed):
    """A validation score that rises with the PGD steps and falls with the ramp's length, and differs by seed."""
    return 40 + 5 * np.log2(values["pgd_steps"]) - 8 * values.get("ramp_length", 0.5) + seed


def made(count=40):
    """A table of that function; the test score is 20 lower, and its curves rise to it."""
    rows = []
    for one in configurations("digits", count):
        for seed in SEEDS:
            end = score(one.values, seed)
            known = {"configuration": one.number, "space": one.space, "seed": seed, "status": "finished", **one.values}
            for epoch in range(1, EPOCHS + 1):
                value = end - 0.5 * (EPOCHS - epoch)
                scores = {f"validation {name}": value for name in ("R@1", "mAP", "ERS", "ARS")}
                scores |= {f"test {name}": end - 20 for name in ("R@1", "mAP", "ERS", "ARS")}
                rows.append({**known, "epoch": epoch, "passes": 100, "seconds": 0.5, **scores})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table():
    return made()


def test_the_configurations_of_a_table_are_the_same_every_time():
    first, again = configurations("digits", 9), configurations("digits", 12)
    assert first == again[:9]
    assert first[0].values["attention_factor"] == 10, "the default comes first"
    assert [one.space for one in first] == ["default", "default", "all"] * 3
    assert all("learning_rate" in one.values for one in first if one.space == "all")
    assert len({json.dumps(one.values) for one in first}) == 9
    assert all(one.config.data.hold_out_validation for one in first)


@pytest.mark.slow
def test_a_row_is_what_a_trial_and_the_verdict_would_see():
    (_, one) = configurations("digits", 2)
    small = {
        "training.epochs": 2,
        "data.pairs_per_epoch": 64,
        "validation.queries": 16,
        "validation.steps": 2,
        "evaluation.steps": 2,
    }
    config = one.config.with_values(small)
    rows = measure(Configuration(1, "default", one.values, config), 3)
    config, device = config.with_values({"seed": 3}), torch.device("cpu")
    splits = load_splits(config.data)
    trial = Trainer(config, splits.train, splits.validation, device=device).run()
    assert [row["validation ARS"] for row in rows] == pytest.approx(
        [epoch.validation["ARS"] for epoch in trial.history], abs=1e-4
    )
    whole = config.with_values({"data.hold_out_validation": False})
    splits = load_splits(whole.data)
    trainer = Trainer(whole, splits.train, None, device=device)
    trainer.run()
    settings = whole.evaluation.with_values({"queries": 256, "bootstrap": 0})
    found = evaluate(trainer.model, splits.test, settings, image_size=8, seed=3, device=device)
    assert [row["test ARS"] for row in rows] == pytest.approx(2 * [found.scores()["ARS"]], abs=1e-4)
    assert {(row["configuration"], row["seed"], row["status"]) for row in rows} == {(1, 3, "finished")}
    assert rows[0]["pgd_steps"] == one.values["pgd_steps"]


def test_what_was_measured_is_not_measured_again(tmp_path, table):
    seeds = range(DEFAULT_SEEDS)
    known = pd.concat([table[(table["configuration"] == 0) & (table["seed"] == 0)].assign(seed=seed) for seed in seeds])
    parts = table[(table["configuration"] == 1) & (table["seed"] == 0)]
    (_, one) = configurations("digits", 2)
    run_file(tmp_path, one, 0).write_text(
        json.dumps([json.loads(row.dropna().to_json()) for _, row in parts.iterrows()])
    )
    said = []
    found = measure_table("digits", 2, 1, tmp_path, known=known, on_run=said.append)
    assert said == ["1 of 1 runs"]
    assert found.groupby("configuration")["seed"].nunique().to_dict() == {0: 5, 1: 1}
    assert len(found) == 6 * EPOCHS
    other = dataclasses.replace(one, config=one.config.with_values({"validation.queries": 7}))
    assert run_file(tmp_path, other, 0) != run_file(tmp_path, one, 0) != run_file(tmp_path, one, 1)


def test_the_galleries_of_fashion_mnist_are_smaller_and_those_of_digits_are_not():
    images = load_splits(preset("digits").data).test
    assert thinned(images, "digits") is images
    small = thinned(images, "fashion-mnist")
    assert len(small) == -(-len(images) // 8)
    assert small.labels.tolist() == images.labels[::8].tolist()
    assert small.pixels(torch.tensor([2])).equal(images.pixels(torch.tensor([16])))


def test_a_table_is_read_as_it_was_written(tmp_path, table):
    path = tmp_path / "tables" / "digits.parquet"
    save_table(table, "digits", path)
    read = load_table(path, "digits")
    pd.testing.assert_frame_equal(read, table, check_names=False)
    assert read.attrs["command"] == "colotride benchmark table --dataset digits --configurations 40 --seeds 3"
    with pytest.raises(SearchError, match="is of digits, not fashion-mnist; give --dataset or --table"):
        load_table(path, "fashion-mnist")
    rows = {row["space"]: row for row in describe(read)}
    assert (rows["default"]["configs"], rows["default"]["runs"], rows["all"]["lost"]) == (27, 81, 0)
    assert rows["default"]["test noise"] == pytest.approx(1.0), "seeds 0, 1 and 2 are a point apart"


def test_another_version_and_what_is_no_table_are_one_line(tmp_path, table):
    old = table.copy()
    old.attrs = {"version": 0}
    old.to_parquet(tmp_path / "old.parquet")
    (tmp_path / "none.parquet").write_text("hello")
    for name, complaint in (
        ("old", "of version 0, not 1"),
        ("none", "is no table"),
        ("missing", "there is no table"),
    ):
        with pytest.raises(SearchError, match=complaint):
            load_table(tmp_path / f"{name}.parquet", "digits")
    asked = ["search", "--replay", "--table", str(tmp_path / "old.parquet"), "--output", "."]
    assert "of version 0" in refused(run("scripts/benchmark.py", *asked, cwd=tmp_path))
    wrong = run("scripts/benchmark.py", "search", "--replay", "--methods", "BOHB", cwd=tmp_path)
    assert "no way to search is called 'BOHB'; there are: random, last validation; random" in refused(wrong)
    assert "--replay replays searches" in refused(run("scripts/benchmark.py", "step", "--replay", cwd=tmp_path))


def test_the_nearest_configuration_is_that_of_a_slow_loop(table):
    plan = plan_of(Method(), 8, "all")
    space = MeasuredSpace(table, plan, "all")

    def distance(one, other):
        total = 0.0
        for parameter in plan.space.parameters:
            a, b = one.get(parameter.name), other.get(parameter.name)
            if parameter.kind == "choice":
                # As far as the ends of a range; one of both alone counts half of that.
                total += (0 if a == b else 1) if (a is None) == (b is None) else 0.5
            elif a is None or b is None:
                total += (a is None) != (b is None)
            else:
                low, high = (
                    np.log([parameter.low, parameter.high]) if parameter.log else (parameter.low, parameter.high)
                )
                a, b = np.log([a, b]) if parameter.log else (a, b)
                total += ((a - b) / (high - low)) ** 2
        return total

    drawn = {one.number: one.values for one in configurations("digits", 40) if one.space == "all" or one.number == 0}
    drawn[0] = plan.initial_points[0]
    for one in configurations("digits", 120)[41::3]:
        expected = min(drawn, key=lambda number: distance(one.values, drawn[number]))
        assert space.nearest(one.values).number == expected
    for number, values in drawn.items():
        assert space.nearest(values).number == number


def test_a_replayed_search_finds_the_best_of_what_it_drew(table):
    method = Method("random")
    plan = plan_of(method, 12, "default", seed=4)
    space = MeasuredSpace(table, plan)
    one = replay(space, plan, method, seed=1)
    assert (one.trials, one.trained) == (12, 120)
    assert one.epochs == sorted(one.epochs)
    values = [runs.validation for runs in one.best]
    assert values == sorted(values), "what is best by one seed is so by all, as seeds only add"
    assert one.winner is one.best[-1]
    again = replay(space, plan, method, seed=1)
    assert (again.epochs, [runs.number for runs in again.best]) == (one.epochs, [runs.number for runs in one.best])
    assert space.default.number == 0
    assert space.best == pytest.approx(max(runs.validation for runs in space.runs))
    # The mean over the three newest epochs of a curve that rises by half a point per epoch, and over the seeds.
    assert space.default.validation == pytest.approx(score(plan.initial_points[0], 1) - 0.5)


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if name not in ("random", "GP")])
def test_stopping_and_races_keep_within_the_budget(table, name):
    method = METHODS[name]
    plan = plan_of(method, 12, "default", seed=1)
    one = replay(MeasuredSpace(table, plan), plan, method, seed=0)
    assert one.trained <= 120 + 2 * EPOCHS, "trials that were begun within the budget are trained to their end"


def test_a_race_is_paid_from_the_same_budget(table):
    method = Method("random", contenders=3)
    plan = plan_of(method, 12, "default", seed=1)
    one = replay(MeasuredSpace(table, plan), plan, method, seed=0)
    # Six whole trials, and a round of the three best: seeds are alike but for what they share, and the others drop out.
    assert (one.trials, one.trained) == (6, 60 + 30)


def test_a_search_that_stops_everything_is_left_with_the_default(table):
    method = Method("random", rungs=(1, 50))
    plan = plan_of(method, 1, "default", seed=1).model_copy(update={"max_epochs": 1})
    lost = table.copy()
    lost["status"] = "collapsed"
    one = replay(MeasuredSpace(lost, plan), plan, method, seed=0)
    assert one.winner.number == 0
    assert (len(one.best), one.epochs) == (1, [one.trained])


def test_a_search_after_another_one_tries_what_that_one_found(table, monkeypatch):
    started = []

    class Watched(SearchStudy):
        def __init__(self, folder, plan, storage):
            started.append(plan)
            super().__init__(folder, plan, storage)

    monkeypatch.setattr("scripts.benchmarks.replay.SearchStudy", Watched)
    method = Method(former=2)
    plan = plan_of(method, 8, "default", seed=1)
    space = MeasuredSpace(table, plan)
    replay(space, plan, method, seed=2)
    former, second = started
    assert former.initial_points == plan.initial_points
    assert former.seed != second.seed == plan.seed
    alone = replay(space, former, Method(), seed=0)
    assert list(second.initial_points) == [
        *plan.initial_points,
        *(values for values in alone.ranked[:2] if values not in plan.initial_points),
    ]
    assert len(second.initial_points) > 1


def test_a_race_compares_different_configurations_only(table, monkeypatch):
    raced = []

    def watched(ranked, score, seeds, repeat):
        raced.append([space.nearest(one.values).number for one in ranked])
        return race(ranked, score, seeds, repeat)

    monkeypatch.setattr("scripts.benchmarks.replay.race", watched)
    method = Method("random", contenders=3)
    few = table[table["configuration"].isin([0, 1, 3, 4])]
    for seed in range(4):
        plan = plan_of(method, 12, "default", seed=seed)
        space = MeasuredSpace(few, plan)
        replay(space, plan, method, seed=0)
    assert all(len(set(numbers)) == len(numbers) for numbers in raced)
    assert any(len(numbers) == 3 for numbers in raced)


def test_a_budget_that_the_race_would_use_up_is_refused():
    with pytest.raises(SearchError, match=r"--trials 6 is used up by the race of 3 trials .* more than 6"):
        plan_of(METHODS["TPE, ASHA, race"], 6, "default")


def test_replays_compare_methods_at_equal_budgets(table):
    rows, courses = replay_all(table, "digits", (4, 8), 6, methods=["random", "TPE"])
    assert [(row.space, row.method, row.budget) for row in rows[:4]] == [
        ("default", "random", 4),
        ("default", "random", 8),
        ("default", "TPE", 4),
        ("default", "TPE", 8),
    ]
    for row in rows:
        assert row.regret >= 0
        assert row.regret_interval[0] <= row.regret <= row.regret_interval[1]
        # The test score is the validation score less a constant here.
        assert row.test_regret == pytest.approx(row.regret)
        assert row.gain_interval[0] <= row.gain <= row.gain_interval[1]
        assert row.better_interval[0] <= row.better <= row.better_interval[1]
    assert {one.epochs[-1] for one in courses} == {80}
    own = share_of_budget(courses, "random", "random", "default")
    assert own.low <= own.share <= 1


def test_the_share_of_a_budget_is_where_the_mean_course_crosses_the_goal():
    epochs = np.arange(10, 60, 10)
    slow = Courses("default", "random", epochs, np.array([[1.0, 2, 3, 4, 5], [1.0, 2, 3, 4, 5]]))
    fast = Courses("default", "TPE", epochs, np.array([[3.0, 4, 6, 7, 8], [3.0, 5, 5, 7, 8]]))
    found = share_of_budget([slow, fast], "random", "TPE", "default")
    assert (found.share, found.low, found.high) == (0.6, 0.4, 0.6), "one of the fast searches alone is there earlier"
    assert share_of_budget([slow, fast], "TPE", "random", "default").share == float("inf")


def test_a_forest_learns_what_lies_between_the_configurations(table):
    plan = plan_of(Method(), 8, "default")
    forest = ForestSpace(table, plan, "default")
    assert forest.quality() > 0.7
    more, fewer = ({**plan.initial_points[0], "pgd_steps": steps} for steps in (24, 2))
    assert forest.nearest(more).validation > forest.nearest(fewer).validation + 5
    assert forest.nearest(more) is forest.nearest(dict(more))
    assert forest.default.test == pytest.approx(forest.default.validation + 0.5 - 20, abs=2.5)
    assert forest.best > forest.default.validation
    # Seeds 0, 1 and 2 are a point apart in every measured curve, and the mean of three holds a third of the variance.
    wide = (3 / 2) ** 0.5
    ends = [
        curve[-1].validation["ARS"] - found.validation - 0.5
        for lam in range(40)
        for found in [forest.nearest({**more, "attention_factor": 1 + lam / 4})]
        for curve in found.curves.values()
    ]
    assert {round(end / wide, 3) for end in ends} <= {-1.0, 0.0, 1.0}
    sums = [sum(ends[place : place + 3]) for place in range(0, len(ends), 3)]
    assert len({round(one, 3) for one in sums}) > 3, "drawn for each seed on its own: their mean is not the truth"
    rows, _ = replay_all(table, "digits", (3, 4), 2, methods=["TPE"], surrogate=True)
    assert len(rows) == 4


def test_configurations_without_all_seeds_are_left_out(table):
    missing = (table["configuration"] == 5) & (table["seed"] == 2)
    assert 5 not in set(complete(table[~missing])["configuration"])
    assert set(complete(table)["configuration"]) == set(table["configuration"])
    more = pd.concat([table, table[table["configuration"] == 3].assign(seed=9)])
    assert set(complete(more)["configuration"]) == set(table["configuration"]), "one with more seeds than most"


@pytest.mark.skipif(not (TABLES / "digits.parquet").is_file(), reason="the table is being measured")
def test_the_table_of_the_project_holds_what_its_description_says():
    read = load_table(TABLES / "digits.parquet", "digits")
    assert (TABLES / "digits.parquet").stat().st_size < 5e6
    drawn = {one.number: one for one in configurations("digits", int(read["configuration"].max()) + 1)}
    for row in read.groupby("configuration").head(1).to_dict("records"):
        for name, value in drawn[row["configuration"]].values.items():
            assert row[name] == pytest.approx(value), f"configuration {row['configuration']} was drawn by other code"


@pytest.mark.slow
def test_replays_are_drawn_and_written(tmp_path, table):
    save_table(table, "digits", tmp_path / "t.parquet")
    asked = ["search", "--replay", "--table", "t.parquet", "--trials", "4", "--repetitions", "2", "--output", "."]
    asked += ["--methods", "random", "TPE, forecast"]
    done = run("scripts/benchmark.py", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "TPE, forecast" in done.stdout
    assert (tmp_path / "replay.png").stat().st_size > 1000
    rows = json.loads((tmp_path / "search.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"random", "TPE, forecast"}
    assert all(row["shares"]["random"]["share"] is not None for row in rows if row["method"] == "random")


def test_a_run_of_fashion_mnist_is_small_enough_for_a_table_and_searched_as_it_was_trained():
    one = configurations("fashion-mnist", 3)[1]
    assert one.config.data.pairs_per_epoch == 128
    plan = plan_of(METHODS["random"], 4, "default", "fashion-mnist")
    assert plan.base.data.pairs_per_epoch == 128
    assert plan.epochs == one.config.training.epochs == 8
    steps, size, epsilon = plan.base.pgd.steps, plan.base.pgd.step_size, plan.base.pgd.epsilon
    assert steps * size == pytest.approx(16 * 3 / 255), "as far as the preset's steps"
    assert epsilon == pytest.approx(77 / 255)
