"""A deterministic search, whose trials end in any order, against itself."""

import random
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from colotride.cli.arguments import parse
from colotride.cli.options.search import Search
from colotride.cli.search import _resumed
from colotride.errors import ColoTrideError, SearchError
from colotride.tune.plan import save_plan
from colotride.tune.study import SearchStudy, _KnownTrials
from tests.tune.searches import reported, score, small_plan

CONCURRENT = 3


def course(order, plan, folder=None):
    """Search with trials that advance in a random order; returns every trial's values, end and scores.

    With a folder the study is on disk, and opened again whenever a trial has ended.
    """
    study = SearchStudy(folder or Path("nowhere"), plan, None if folder else InMemoryStorage())
    turns = random.Random(order)
    running = []
    while True:
        while len(running) < CONCURRENT and (record := study.draw()) is not None:
            running.append(record.number)
        if not running:
            break
        number = turns.choice(running)
        record = study.record(number)
        epoch = record.epoch + 1
        end = "finished" if epoch == plan.epochs else "collapsed" if epoch == 2 and number % 7 == 0 else "running"
        stop = study.report(reported(record, epoch, score(record.values) * (0.5 + epoch / 24), end))
        if stop or end != "running":
            study.settle(number)
            running.remove(number)
            if folder:
                study = SearchStudy(folder, plan)
                running = study.unfinished()
    return [(one.values, one.status, one.epoch, one.scores) for one in study.records()]


@pytest.mark.parametrize(
    ("sampler", "stopping"), [("tpe", "asha"), ("tpe", "median"), ("gp", "none"), ("nsga2", "none"), ("random", "asha")]
)
def test_the_same_seed_gives_the_same_search_whichever_trial_is_faster(tmp_path, sampler, stopping):
    plan = small_plan(trials=14, sampler=sampler, stopping=stopping, deterministic=True, concurrent=CONCURRENT)
    first = course(1, plan)
    assert course(2, plan) == first
    assert len(first) == plan.trials
    if sampler == "tpe" and stopping == "asha":
        assert course(3, plan, tmp_path / "reopened") == first
    if stopping != "none":
        assert {status for _, status, _, _ in first} >= {"finished", "stopped", "collapsed"}


def test_what_later_trials_have_done_is_not_to_be_seen():
    study = SearchStudy(Path("nowhere"), small_plan(trials=9), InMemoryStorage())
    for number in (1, 2, 3):
        study.draw()
        for at in range(1, 13):
            study.report(reported(study.record(number), at, 50.0, "finished" if at == 12 else "running"))
        study.settle(number)
    seen = _KnownTrials(study._storage, known=1, own=3).get_all_trials(study.study._study_id)
    assert [(one.state.name, bool(one.intermediate_values)) for one in seen] == [
        ("COMPLETE", True), ("RUNNING", False), ("COMPLETE", True),
    ]  # fmt: skip
    assert seen[1].params
    assert not any(key.startswith("completed_rung") for key in seen[1].system_attrs)
    assert (seen[1].user_attrs, seen[1].constraints) == ({}, {})
    assert study.study.trials[1].value == 50.0, "the study itself is as it was"


def test_otherwise_the_order_of_ends_decides():
    plan = small_plan(trials=14, concurrent=CONCURRENT)
    assert course(1, plan) != course(2, plan)


def test_a_budget_of_epochs_is_spent_alike():
    plan = small_plan(trials=50, max_epochs=70, deterministic=True, concurrent=CONCURRENT)
    first = course(1, plan)
    assert course(2, plan) == first
    assert len(first) < 50


def test_a_deterministic_search_keeps_how_many_run_at_once(tmp_path):
    plan = small_plan(deterministic=True, concurrent=CONCURRENT)
    folder = tmp_path / "one"
    folder.mkdir()
    save_plan(plan, folder)
    resumed = ["--results", str(tmp_path), "--resume", "one", "--concurrent"]
    with pytest.raises(
        SearchError, match="--concurrent cannot change in a deterministic search; leave it out, or give 3"
    ):
        _resumed(parse(Search, [*resumed, "2"]))
    assert _resumed(parse(Search, [*resumed, "3"]))[0].concurrent == CONCURRENT
    with pytest.raises(ColoTrideError, match="--deterministic cannot change"):
        _resumed(parse(Search, [*resumed[:4], "--deterministic"]))
