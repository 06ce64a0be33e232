"""The study of a search: a real Optuna study on disk, told the truth."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from colotride.tune.journal import CheckedJournal
from colotride.tune.study import JOURNAL, STUDY, SearchStudy
from tests.commands import ROOT, environment
from tests.tune.searches import reported, small_plan


def study_on_disk(folder):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))
    return optuna.load_study(study_name=STUDY, storage=storage)


@pytest.fixture
def study(tmp_path):
    return SearchStudy(tmp_path, small_plan())


def test_the_first_configurations_come_first_then_the_sampler_until_the_plan_is_through(study):
    first = study.draw()
    assert first.number == 1
    assert first.values["attention_factor"] == 10
    assert first.values["ramp"] == "linear"
    others = [study.draw() for _ in range(3)]
    assert [record.number for record in others] == [2, 3, 4]
    assert all(record.values != first.values for record in others)
    assert study.draw() is None
    assert not study.complete


def test_a_trial_that_reached_its_last_epoch_is_complete_with_its_score(study, tmp_path):
    study.draw()
    for number, value in ((1, 20.0), (2, 30.0)):
        assert study.report(reported(study.record(1), number, value, cost=number)) is False
    study.report(reported(study.record(1), 3, 25.0, "finished", cost=3.0))
    study.settle(1)
    (trial,) = study_on_disk(tmp_path).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 25.0)
    assert trial.intermediate_values == {1: 20.0, 2: 25.0, 3: 25.0}, "means over the newest validations"
    assert (trial.user_attrs["status"], trial.user_attrs["epoch"]) == ("finished", 3)
    record = study.record(1)
    assert record.curve("ARS") == {1: 20.0, 2: 30.0, 3: 25.0}
    assert (record.costs, record.seconds) == ([1.0, 3.0, 6.0], 6.0)


def seventh(study):
    """Finish six trials that rise from 51 to 62, and begin the seventh."""
    for number in range(1, 7):
        study.draw()
        for at in range(1, 13):
            study.report(reported(study.record(number), at, 50.0 + at, "running" if at < 12 else "finished"))
        study.settle(number)
    study.draw()


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_trial_that_is_stopped_is_pruned_at_its_epoch_and_wins_against_nobody(tmp_path, stopping):
    study = SearchStudy(tmp_path, small_plan(trials=8, stopping=stopping))
    seventh(study)
    told = {at: study.report(reported(study.record(7), at, 1.0)) for at in range(1, study.plan.grace + 1)}
    assert [at for at, stop in told.items() if stop] == [study.plan.grace], "not before every trial has had its grace"
    study.settle(7)
    trial = study_on_disk(tmp_path).trials[6]
    assert trial.state == TrialState.PRUNED
    assert (trial.user_attrs["status"], trial.user_attrs["epoch"]) == ("stopped", study.plan.grace)
    assert trial.value == 1.0, "the sampler sees what it had reached when it was stopped"
    assert study_on_disk(tmp_path).best_value == 61.0


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_decision_to_stop_outlives_the_driver(tmp_path, stopping):
    study = SearchStudy(tmp_path, small_plan(trials=8, stopping=stopping))
    seventh(study)
    told = [study.report(reported(study.record(7), at, 1.0)) for at in range(1, study.plan.grace + 1)]
    assert told[-1]
    again = SearchStudy(tmp_path, study.plan)
    retold = [again.report(reported(again.record(7), at, 1.0)) for at in range(1, study.plan.grace + 1)]
    assert retold == told, "the trial goes on from its checkpoint and tells of its epochs again"
    again.settle(7)
    assert again.record(7).status == "stopped"


class KilledError(BaseException):
    """Takes the place of SIGKILL: nothing is written after it."""


@pytest.mark.slow
@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_driver_that_is_killed_at_any_write_of_a_decision_decides_alike_after_it(tmp_path, stopping, monkeypatch):
    def told(study):
        return [study.report(reported(study.record(7), at, 1.0)) for at in range(1, study.plan.grace + 1)]

    study = SearchStudy(tmp_path / "undisturbed", small_plan(trials=8, stopping=stopping))
    seventh(study)
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "before")
    expected, left = told(study), -1
    assert expected[-1]
    append, kills = CheckedJournal.append_logs, 0

    def killed_after(some):
        def append_logs(journal, logs):
            nonlocal some
            if some == 0:
                raise KilledError
            some -= 1
            append(journal, logs)

        return append_logs

    while kills > left:
        left = kills
        folder = shutil.copytree(tmp_path / "before", tmp_path / f"killed{kills}")
        study = SearchStudy(folder, study.plan)
        monkeypatch.setattr(CheckedJournal, "append_logs", killed_after(kills))
        try:
            told(study)
        except KilledError:
            kills += 1
        monkeypatch.setattr(CheckedJournal, "append_logs", append)
        again = SearchStudy(folder, study.plan)
        assert told(again)[-1]
        assert again.record(7).epoch == study.plan.grace
        trial = study_on_disk(folder).trials[6]
        known = study_on_disk(tmp_path / "undisturbed").trials[6]
        assert (trial.user_attrs, trial.system_attrs) == (known.user_attrs, known.system_attrs)
    assert kills > 4


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_a_trial_that_is_nearly_done_is_not_stopped(tmp_path, stopping):
    study = SearchStudy(tmp_path, small_plan(trials=8, stopping=stopping))
    epochs = study.plan.epochs
    for number in range(1, 7):
        study.draw()
        for at in range(1, epochs + 1):
            study.report(reported(study.record(number), at, 50.0 + at, "running" if at < epochs else "finished"))
        study.settle(number)
    study.draw()
    late = range(2 * epochs // 3 + 1, epochs)
    told = [study.report(reported(study.record(7), at, 1.0)) for at in late]
    assert not any(told)


def test_without_stopping_even_the_worst_goes_on(tmp_path):
    study = SearchStudy(tmp_path, small_plan(trials=9, stopping="none"))
    for number in range(1, 9):
        study.draw()
        assert not any(study.report(reported(study.record(number), at, 60.0 - 9 * number)) for at in range(1, 12))


@pytest.mark.parametrize("status", ["collapsed", "nan", "diverged"])
def test_a_lost_model_is_pruned_infeasible_and_the_more_so_the_earlier_it_was_lost(study, tmp_path, status):
    for number, lost_at in ((1, 2), (2, 9)):
        study.draw()
        study.report(reported(study.record(number), lost_at, 0.0, status))
        study.settle(number)
    early, late = study_on_disk(tmp_path).trials
    assert early.state == late.state == TrialState.PRUNED
    assert early.intermediate_values == {}, "the value of a lost model is no value"
    assert early.constraints["health"] > late.constraints["health"] > 1
    assert (early.user_attrs["status"], early.user_attrs["epoch"]) == (status, 2)


def test_tpe_keeps_away_from_where_models_collapse(tmp_path):
    study = SearchStudy(tmp_path, small_plan(trials=60, stopping="none"))
    drawn = []
    while (record := study.draw()) is not None:
        drawn.append(record.values["top_ranked_coefficient"])
        # What is measured has nothing to do with the cliff behind which every model collapses.
        if record.values["top_ranked_coefficient"] > 0.9:
            study.report(reported(study.record(record.number), 3, 0.0, "collapsed"))
        else:
            study.report(reported(study.record(record.number), 12, float(record.values["pgd_steps"]), "finished"))
        study.settle(record.number)
    late = drawn[20:]
    assert sum(value > 0.9 for value in late) < 0.2 * len(late), "uniform draws would be there in 40 % of the trials"


def test_a_trial_that_raised_has_failed_with_its_reason(study, tmp_path):
    study.draw()
    study.settle(1, error="ValueError: something")
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.state == TrialState.FAIL
    assert (study.record(1).status, study.record(1).reason) == ("error", "ValueError: something")


def test_a_driver_that_starts_again_knows_every_trial_and_draws_the_same_next(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def course(folder, *, again):
        study = SearchStudy(folder, small_plan(trials=9, stopping="none"))
        for number in range(1, 8):
            study.draw()
            study.report(reported(study.record(number), 1, 20.0 - number))
            if again:
                study = SearchStudy(folder, study.plan)
                assert study.unfinished() == [number]
                assert study.report(reported(study.record(number), 1, 20.0 - number)) is False, (
                    "told again of what it knows"
                )
            study.report(reported(study.record(number), 12, 10.0 * number, "finished"))
            study.settle(number)
        study.draw()
        return study.records()

    plain, interrupted = course(tmp_path / "one", again=False), course(tmp_path / "two", again=True)
    assert plain == interrupted
    assert [trial.params for trial in study_on_disk(tmp_path / "one").trials] == [record.values for record in plain]


def test_a_finished_trial_whose_end_was_not_written_down_is_closed_when_it_is_told_again(tmp_path):
    study = SearchStudy(tmp_path, small_plan())
    study.draw()
    study.report(reported(study.record(1), 12, 33.0, "finished"))
    again = SearchStudy(tmp_path, small_plan())
    assert again.record(1).status == "finished"
    again.report(reported(again.record(1), 12, 33.0, "finished"))
    again.settle(1)
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.value == 33.0
    assert again.record(1).curve("ARS") == {12: 33.0}


def test_half_a_line_at_the_end_of_the_journal_is_forgotten(tmp_path):
    study = SearchStudy(tmp_path, small_plan())
    study.draw()
    study.report(reported(study.record(1), 1, 20.0))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 5, "trial_id": 0, "st')
    again = SearchStudy(tmp_path, small_plan())
    again.report(reported(again.record(1), 2, 30.0))
    assert study_on_disk(tmp_path).trials[0].intermediate_values == {1: 20.0, 2: 25.0}


def test_more_trials_may_be_asked_for_later(tmp_path):
    study = SearchStudy(tmp_path, small_plan(trials=1))
    study.draw()
    study.report(reported(study.record(1), 12, 30.0, "finished"))
    study.settle(1)
    assert study.complete
    more = SearchStudy(tmp_path, small_plan(trials=2))
    assert not more.complete
    assert more.draw().number == 2


def test_several_objectives_are_told_together(tmp_path):
    study = SearchStudy(tmp_path, small_plan(objectives=("R@1", "ARS"), stopping="none", sampler="nsga2", trials=3))
    for number, (r1, ars) in enumerate([(60.0, 20.0), (50.0, 30.0), (40.0, 10.0)], start=1):
        study.draw()
        assert study.report(reported(study.record(number), 5, ars, r1=r1)) is False
        study.report(reported(study.record(number), 12, ars, "finished", r1=r1))
        study.settle(number)
    study = study_on_disk(tmp_path)
    assert [trial.values for trial in study.trials] == [[60.0, 20.0], [50.0, 30.0], [40.0, 10.0]]
    assert [trial.number for trial in study.best_trials] == [0, 1]


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "nsga2", "random"])
def test_every_sampler_draws_the_same_from_the_same_seed(tmp_path, sampler):
    courses = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        study = SearchStudy(
            tmp_path / name, small_plan(sampler=sampler, stopping="none", trials=9, seed=int(name == "three"))
        )
        while (record := study.draw()) is not None:
            study.report(reported(study.record(record.number), 12, record.values["attention_factor"], "finished"))
            study.settle(record.number)
        courses.append([record.values for record in study.records()])
    assert courses[0] == courses[1]
    assert courses[0][1:] != courses[2][1:]


DRIVER = """
import sys
from pathlib import Path
from colotride.tune.study import SearchStudy
from tests.tune.searches import reported, small_plan

study = SearchStudy(Path(sys.argv[1]), small_plan(trials=100, stopping="none"))
print("ready", flush=True)
for number in [*study.unfinished(), *range(len(study.records()) + 1, 101)]:
    if number > len(study.records()):
        study.draw()
    for at in range(study.record(number).epoch + 1, 13):
        study.report(reported(study.record(number), at, at + number, "running" if at < 12 else "finished"))
    study.settle(number)
"""


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_loses_no_trial_and_doubles_none(tmp_path):
    journal = tmp_path / JOURNAL
    for growth in (1, 5_000, 25_000, 70_000):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path)],
            cwd=ROOT,
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
        )
        driver.stdout.readline()
        # Somewhere within a line, however busy the machine is.
        before = journal.stat().st_size
        while journal.stat().st_size < before + growth and driver.poll() is None:
            time.sleep(0.001)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        driver.stdout.close()
    done = SearchStudy(tmp_path, small_plan(trials=100, stopping="none"))
    numbers = [record.number for record in done.records()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 4
    assert len(done.unfinished()) <= 1
    for record in done.records():
        assert record.curve("ARS") == {at: at + record.number for at in range(1, record.epoch + 1)}
        assert record.epoch == 12 or record.status == "running"


def operations(folder):
    return (folder / JOURNAL).read_bytes().count(b"\n")


def test_an_epoch_is_written_with_one_wait_for_the_disk(tmp_path, monkeypatch):
    # A pruner's notes would be a second one.
    study, waits = SearchStudy(tmp_path, small_plan(stopping="none")), []
    study.draw()
    study.report(reported(study.record(1), 1, 20.0))
    fsync, before = os.fsync, operations(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: waits.append(fsync(handle)))
    study.report(reported(study.record(1), 2, 30.0))
    assert len(waits) == 1
    # The value, the epoch and its number: what has not changed is not written again.
    assert operations(tmp_path) - before == 3


def test_operations_that_are_written_together_are_those_that_are_written_one_by_one(tmp_path):
    journals = {}
    for name in ("alone", "together"):
        journal = journals[name] = CheckedJournal(tmp_path / name)
        logs = [{"op_code": 2, "number": number} for number in range(4)]
        if name == "alone":
            for log in logs:
                journal.append_logs([log])
        else:
            with journal.together():
                journal.append_logs(logs[:1])
                with journal.together():
                    journal.append_logs(logs[1:3])
                assert not list(journal.read_logs(0)), "not seen before the end"
                journal.append_logs(logs[3:])
    alone, together = ((tmp_path / name).read_bytes() for name in journals)
    assert alone == together


def test_what_was_added_before_a_failure_is_written(tmp_path):
    journal = CheckedJournal(tmp_path / JOURNAL)

    def fail_halfway():
        with journal.together():
            journal.append_logs([{"op_code": 2}])
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert len(list(journal.read_logs(0))) == 1
    journal.append_logs([{"op_code": 2}])
    assert len(list(CheckedJournal(tmp_path / JOURNAL).read_logs(0))) == 2


@pytest.mark.parametrize("alone", [True, False])
def test_trials_that_had_reported_their_end_are_closed_when_the_search_goes_on(tmp_path, alone):
    """The driver was killed between a trial's report and its end."""
    study = SearchStudy(tmp_path, small_plan())
    for number, status in ((1, "finished"), (2, "collapsed"), (3, "out-of-memory"), (4, "running")):
        study.draw()
        study.report(reported(study.record(number), 12 if number == 1 else 2, 20.0, status))
    again = SearchStudy(tmp_path, small_plan())
    again.settle_ended(alone=alone)
    states = [trial.state for trial in study_on_disk(tmp_path).trials]
    third = TrialState.RUNNING if alone else TrialState.FAIL
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, third, TrialState.RUNNING]
    assert again.unfinished() == ([3, 4] if alone else [4])


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_that_was_half_drawn_gets_the_values_that_it_would_have_got(sampler):
    class KilledError(Exception):
        pass

    plan = small_plan(sampler=sampler, trials=3)
    storage = optuna.storages.InMemoryStorage()
    undisturbed = SearchStudy(Path("search"), plan, optuna.storages.InMemoryStorage())
    undisturbed.draw()
    expected = undisturbed.draw().values
    write, left = storage.set_trial_param, [0]

    def until_killed(*given):
        if left[0] == 0:
            raise KilledError
        left[0] -= 1
        write(*given)

    for count in range(len(expected)):
        storage = optuna.storages.InMemoryStorage()
        study = SearchStudy(Path("search"), plan, storage)
        study.draw()
        write, left[0] = storage.set_trial_param, count
        storage.set_trial_param = until_killed
        with pytest.raises(KilledError):
            study.draw()
        storage.set_trial_param = write
        again = SearchStudy(Path("search"), plan, storage)
        assert again.record(2).values == expected, f"killed after {count} values"
        assert storage.get_all_trials(0)[1].params == {
            name: value for name, value in expected.items() if name in storage.get_all_trials(0)[1].params
        }
        assert len(storage.get_all_trials(0)[1].params) == len(expected)
