"""The searcher against a real Optuna study on disk."""

import optuna
import pytest
from optuna.trial import TrialState

from colotride.presets import preset
from tune.searcher import build_searcher
from tune.space import default_space


def result(epoch, value, status="running"):
    return {"ARS": value, "epoch": epoch, "status": status, "training_iteration": epoch}


@pytest.fixture
def searcher(tmp_path):
    space = default_space()
    return build_searcher(space, [space.point_of(preset("digits"))], metric="ARS", journal=tmp_path / "journal", seed=0)


def study_on_disk(tmp_path):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal")))
    return optuna.load_study(study_name="colotride", storage=storage)


def test_the_default_configuration_comes_first(searcher):
    values = searcher.suggest("one")
    assert values["attention_factor"] == 10
    assert values["ramp"] == "linear"
    assert searcher.suggest("two") != values


def test_a_trial_that_reached_its_last_epoch_is_complete_with_its_last_value(searcher, tmp_path):
    searcher.suggest("one")
    for epoch, value in ((1, 20.0), (2, 30.0)):
        searcher.on_trial_result("one", result(epoch, value))
    last = result(3, 25.0, "finished")
    searcher.on_trial_result("one", last)
    searcher.on_trial_complete("one", last)
    (trial,) = study_on_disk(tmp_path).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 25.0)
    assert trial.intermediate_values == {1: 20.0, 2: 30.0, 3: 25.0}
    assert trial.user_attrs == {"status": "finished", "epoch": 3}


def test_a_trial_that_the_scheduler_stopped_is_pruned_at_its_epoch_not_complete(searcher, tmp_path):
    searcher.suggest("one")
    searcher.on_trial_result("one", result(2, 41.0))
    searcher.on_trial_complete("one", result(2, 41.0))
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {2: 41.0}
    assert trial.user_attrs == {"status": "stopped", "epoch": 2}
    assert study_on_disk(tmp_path).get_trials(states=[TrialState.COMPLETE]) == []


@pytest.mark.parametrize("status", ["collapsed", "nan", "diverged"])
def test_a_lost_trial_is_pruned_and_says_why(searcher, tmp_path, status):
    searcher.suggest("one")
    last = result(1, 0.0, status)
    searcher.on_trial_result("one", last)
    searcher.on_trial_complete("one", last)
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs == {"status": status, "epoch": 1}


def test_a_trial_that_raised_has_failed(searcher, tmp_path):
    searcher.suggest("one")
    searcher.on_trial_complete("one", error=True)
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.state == TrialState.FAIL


def test_the_sampler_learns_only_from_what_happened(searcher, tmp_path):
    for name in ("a", "b", "c"):
        searcher.suggest(name)
    for name, value in (("a", 10.0), ("b", 50.0)):
        searcher.on_trial_result(name, result(3, value, "finished"))
        searcher.on_trial_complete(name, result(3, value, "finished"))
    searcher.on_trial_result("c", result(1, 99.0))
    searcher.on_trial_complete("c", result(1, 99.0))
    assert study_on_disk(tmp_path).best_value == 50.0, "a value from epoch 1 does not win against trained trials"


def test_values_stand_at_their_epochs_when_not_every_epoch_is_validated(searcher, tmp_path):
    searcher.suggest("one")
    searcher.on_trial_result("one", {"ARS": 5.0, "epoch": 4, "status": "running", "training_iteration": 2})
    (trial,) = study_on_disk(tmp_path).trials
    assert trial.intermediate_values == {4: 5.0}
