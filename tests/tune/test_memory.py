"""The memory of a search: a real Optuna study on disk, told the truth."""

import os
import signal
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from colotride.presets import preset
from colotride.tune.memory import JOURNAL, STUDY, Memory
from colotride.tune.plan import Plan
from colotride.tune.space import default_space
from tests.commands import ROOT, environment


def plan(**changes):
    base, space = preset("digits"), default_space()
    return Plan(base=base, space=space, first=(space.point_of(base),), **{"trials": 4, **changes})


def epoch(number, value, status="running", cost=0.0, r1=50.0):
    return {
        "ARS": value, "ERS": value / 2, "R@1": r1, "mAP": 10.0, "epoch": number, "status": status,
        "reason": "" if status == "running" else "why", "seconds": 2.0, "cost": cost,
    }  # fmt: skip


def study_on_disk(folder):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))
    return optuna.load_study(study_name=STUDY, storage=storage)


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path, plan())


def test_the_first_configurations_come_first_then_the_sampler_until_the_plan_is_through(memory):
    first = memory.draw()
    assert first.number == 1
    assert first.values["attention_factor"] == 10
    assert first.values["ramp"] == "linear"
    others = [memory.draw() for _ in range(3)]
    assert [row.number for row in others] == [2, 3, 4]
    assert all(row.values != first.values for row in others)
    assert memory.draw() is None
    assert not memory.complete


def test_a_trial_that_reached_its_last_epoch_is_complete_with_its_last_value(memory, tmp_path):
    memory.draw()
    for number, value in ((1, 20.0), (2, 30.0)):
        assert memory.report(1, epoch(number, value, cost=number)) is False
    memory.report(1, epoch(3, 25.0, "finished", cost=3.0))
    memory.settle(1)
    (trial,) = study_on_disk(tmp_path).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 25.0)
    assert trial.intermediate_values == {1: 20.0, 2: 30.0, 3: 25.0}
    assert (trial.user_attrs["status"], trial.user_attrs["epoch"]) == ("finished", 3)
    row = memory.row(1)
    assert (row.curve, row.costs, row.cost, row.seconds) == ([20.0, 30.0, 25.0], [1, 2, 3.0], 3.0, 6.0)


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_trial_that_is_stopped_is_pruned_at_its_epoch_and_wins_against_nobody(tmp_path, stopping):
    memory = Memory(tmp_path, plan(trials=8, stopping=stopping))
    for number in range(1, 7):
        memory.draw()
        for at in range(1, 13):
            memory.report(number, epoch(at, 50.0 + at, "running" if at < 12 else "finished"))
        memory.settle(number)
    memory.draw()
    told = {at: memory.report(7, epoch(at, 1.0)) for at in range(1, memory.plan.grace + 1)}
    assert [at for at, stop in told.items() if stop] == [memory.plan.grace], "not before every trial has had its grace"
    memory.settle(7)
    trial = study_on_disk(tmp_path).trials[6]
    assert trial.state == TrialState.PRUNED
    assert (trial.user_attrs["status"], trial.user_attrs["epoch"]) == ("stopped", memory.plan.grace)
    assert trial.value == 1.0, "the sampler sees what it had reached when it was stopped"
    assert study_on_disk(tmp_path).best_value == 62.0


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_decision_to_stop_outlives_the_driver(tmp_path, stopping):
    memory = Memory(tmp_path, plan(trials=8, stopping=stopping))
    for number in range(1, 7):
        memory.draw()
        for at in range(1, 13):
            memory.report(number, epoch(at, 50.0 + at, "running" if at < 12 else "finished"))
        memory.settle(number)
    memory.draw()
    told = [memory.report(7, epoch(at, 1.0)) for at in range(1, memory.plan.grace + 1)]
    assert told[-1]
    again = Memory(tmp_path, memory.plan)
    retold = [again.report(7, epoch(at, 1.0)) for at in range(1, memory.plan.grace + 1)]
    assert retold == told, "the trial goes on from its checkpoint and tells of its epochs again"
    again.settle(7)
    assert again.row(7).status == "stopped"


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_trial_that_is_nearly_done_is_not_stopped(tmp_path, stopping):
    memory = Memory(tmp_path, plan(trials=8, stopping=stopping))
    epochs = memory.plan.epochs
    for number in range(1, 7):
        memory.draw()
        for at in range(1, epochs + 1):
            memory.report(number, epoch(at, 50.0 + at, "running" if at < epochs else "finished"))
        memory.settle(number)
    memory.draw()
    late = range(2 * epochs // 3 + 1, epochs)
    told = [memory.report(7, epoch(at, 1.0)) for at in late]
    assert not any(told)


def test_without_stopping_even_the_worst_goes_on(tmp_path):
    memory = Memory(tmp_path, plan(trials=9, stopping="none"))
    for number in range(1, 9):
        memory.draw()
        assert not any(memory.report(number, epoch(at, 60.0 - 9 * number)) for at in range(1, 12))


@pytest.mark.parametrize("status", ["collapsed", "nan", "diverged"])
def test_a_lost_model_is_pruned_infeasible_and_the_more_so_the_earlier_it_was_lost(memory, tmp_path, status):
    for number, lost_at in ((1, 2), (2, 9)):
        memory.draw()
        memory.report(number, epoch(lost_at, 0.0, status))
        memory.settle(number)
    early, late = study_on_disk(tmp_path).trials
    assert early.state == late.state == TrialState.PRUNED
    assert early.intermediate_values == {}, "the value of a lost model is no value"
    assert early.constraints["health"] > late.constraints["health"] > 1
    assert (early.user_attrs["status"], early.user_attrs["epoch"]) == (status, 2)


def test_tpe_keeps_away_from_where_models_collapse(tmp_path):
    memory = Memory(tmp_path, plan(trials=60, stopping="none"))
    drawn = []
    while (row := memory.draw()) is not None:
        drawn.append(row.values["top_ranked_coefficient"])
        # What is measured has nothing to do with the cliff behind which every model collapses.
        if row.values["top_ranked_coefficient"] > 0.9:
            memory.report(row.number, epoch(3, 0.0, "collapsed"))
        else:
            memory.report(row.number, epoch(12, float(row.values["pgd_steps"]), "finished"))
        memory.settle(row.number)
    late = drawn[20:]
    assert sum(value > 0.9 for value in late) < 0.2 * len(late), "uniform draws would be there in 40 % of the trials"


def test_a_trial_that_raised_has_failed_with_its_reason(memory, tmp_path):
    memory.draw()
    memory.settle(1, error="ValueError: something")
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.state == TrialState.FAIL
    assert (memory.row(1).status, memory.row(1).reason) == ("error", "ValueError: something")


def test_a_driver_that_starts_again_knows_every_trial_and_draws_the_same_next(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def course(folder, *, again):
        memory = Memory(folder, plan(trials=9, stopping="none"))
        for number in range(1, 8):
            memory.draw()
            memory.report(number, epoch(1, 20.0 - number))
            if again:
                memory = Memory(folder, memory.plan)
                assert memory.unfinished() == [number]
                assert memory.report(number, epoch(1, 20.0 - number)) is False, "told again of what it knows"
            memory.report(number, epoch(12, 10.0 * number, "finished"))
            memory.settle(number)
        memory.draw()
        return memory.rows()

    plain, interrupted = course(tmp_path / "one", again=False), course(tmp_path / "two", again=True)
    assert plain == interrupted
    assert [trial.params for trial in study_on_disk(tmp_path / "one").trials] == [row.values for row in plain]


def test_a_finished_trial_whose_end_was_not_written_down_is_closed_when_it_is_told_again(tmp_path):
    memory = Memory(tmp_path, plan())
    memory.draw()
    memory.report(1, epoch(12, 33.0, "finished"))
    again = Memory(tmp_path, plan())
    assert again.row(1).status == "finished"
    again.report(1, epoch(12, 33.0, "finished"))
    again.settle(1)
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.value == 33.0
    assert again.row(1).curve == [33.0]


def test_half_a_line_at_the_end_of_the_journal_is_forgotten(tmp_path):
    memory = Memory(tmp_path, plan())
    memory.draw()
    memory.report(1, epoch(1, 20.0))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 5, "trial_id": 0, "st')
    again = Memory(tmp_path, plan())
    again.report(1, epoch(2, 30.0))
    assert study_on_disk(tmp_path).trials[0].intermediate_values == {1: 20.0, 2: 30.0}


def test_more_trials_may_be_asked_for_later(tmp_path):
    memory = Memory(tmp_path, plan(trials=1))
    memory.draw()
    memory.report(1, epoch(12, 30.0, "finished"))
    memory.settle(1)
    assert memory.complete
    more = Memory(tmp_path, plan(trials=2))
    assert not more.complete
    assert more.draw().number == 2


def test_several_objectives_are_told_together(tmp_path):
    memory = Memory(tmp_path, plan(objectives=("R@1", "ARS"), stopping="none", sampler="nsga2", trials=3))
    for number, (r1, ars) in enumerate([(60.0, 20.0), (50.0, 30.0), (40.0, 10.0)], start=1):
        memory.draw()
        assert memory.report(number, epoch(5, ars, r1=r1)) is False
        memory.report(number, epoch(12, ars, "finished", r1=r1))
        memory.settle(number)
    study = study_on_disk(tmp_path)
    assert [trial.values for trial in study.trials] == [[60.0, 20.0], [50.0, 30.0], [40.0, 10.0]]
    assert [trial.number for trial in study.best_trials] == [0, 1]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random"])
def test_every_sampler_draws_the_same_from_the_same_seed(tmp_path, sampler):
    courses = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        memory = Memory(tmp_path / name, plan(sampler=sampler, stopping="none", trials=9, seed=int(name == "three")))
        while (row := memory.draw()) is not None:
            memory.report(row.number, epoch(12, row.values["attention_factor"], "finished"))
            memory.settle(row.number)
        courses.append([row.values for row in memory.rows()])
    assert courses[0] == courses[1]
    assert courses[0][1:] != courses[2][1:]


DRIVER = """
import sys
from pathlib import Path
from tests.tune.test_memory import epoch, plan
from colotride.tune.memory import Memory

memory = Memory(Path(sys.argv[1]), plan(trials=100, stopping="none"))
print("ready", flush=True)
for number in [*memory.unfinished(), *range(len(memory.rows()) + 1, 101)]:
    if number > len(memory.rows()):
        memory.draw()
    for at in range(memory.row(number).epoch + 1, 13):
        memory.report(number, epoch(at, at + number, "running" if at < 12 else "finished"))
    memory.settle(number)
"""


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_loses_no_trial_and_doubles_none(tmp_path):
    for delay in (0.02, 0.1, 0.3, 0.7):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path)],
            cwd=ROOT,
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
        )
        driver.stdout.readline()
        try:
            driver.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        driver.stdout.close()
    done = Memory(tmp_path, plan(trials=100, stopping="none"))
    numbers = [row.number for row in done.rows()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 4
    assert len(done.unfinished()) <= 1
    for row in done.rows():
        assert row.curve == [float(at + row.number) for at in range(1, row.epoch + 1)]
        assert row.epoch == 12 or row.status == "running"
