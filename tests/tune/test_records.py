"""A trial's record, and which of several trials is the best."""

import pytest

from colotride.errors import SearchError
from colotride.training.records import EpochRecord
from colotride.tune.records import TrialRecord, best_first, pareto_front
from tests.tune.searches import BASE


def record(number, r1, ars, status="finished", reason=""):
    epoch = EpochRecord(9, 9, 1.0, {}, {"R@1": float(r1), "ARS": float(ars)})
    return TrialRecord(number, {}, BASE, status, reason, (epoch,))


def test_the_best_trial_finished_and_ties_go_to_the_earlier_one():
    records = [record(1, 50, 30), record(2, 50, 40), record(3, 50, 99, "stopped"), record(4, 50, 40)]
    assert [one.number for one in best_first(records, ["ARS"])] == [2, 4, 1]


def test_a_front_is_what_no_other_trial_beats_in_everything():
    records = [
        record(1, 60, 20),
        record(2, 50, 30),
        record(3, 49, 29),
        record(4, 60, 19),
        record(5, 10, 31),
        record(6, 99, 99, "stopped"),
    ]
    assert [one.number for one in pareto_front(records, ["R@1", "ARS"])] == [1, 2, 5]
    # From worst to best: R@1 from 10 to 60, ARS from 19 to 31; sums 1.08, 1.72, 1.61, 1, 1.
    assert [one.number for one in best_first(records, ["R@1", "ARS"])] == [2, 1, 5, 3, 4]


def test_no_finished_trial_is_one_line_that_says_why():
    records = [record(1, 0, 0, "collapsed"), record(2, 0, 0, "error", "ValueError: bad")]
    with pytest.raises(SearchError, match=r"none of the 2 trials .* collapsed, error \(ValueError: bad\)"):
        best_first(records, ["ARS"])


def test_a_record_adds_up_its_epochs_and_leaves_out_those_without_a_score():
    history = tuple(
        EpochRecord(epoch, epoch, 2.0, {}, {"ARS": 10.0 * epoch} if epoch != 2 else {}, 1_500_000)
        for epoch in (1, 2, 3)
    )
    one = TrialRecord(1, {}, BASE, history=history)
    assert (one.epoch, one.seconds, one.cost, one.costs) == (3, 6.0, 4.5, [1.5, 3.0, 4.5])
    assert one.curve("ARS") == {1: 10.0, 3: 30.0}
    assert one.scores == {"R@1": 0.0, "mAP": 0.0, "ERS": 0.0, "ARS": 20.0}
    assert TrialRecord(2, {}, BASE).scores == {}


def test_a_score_is_the_mean_over_the_newest_validations_and_0_for_a_lost_model():
    def after(*values):
        return tuple(
            EpochRecord(at, at, 1.0, {}, {} if one is None else {"ARS": one}) for at, one in enumerate(values, 1)
        )

    def ars(count, *values):
        config = BASE.with_values({"validation.average_over": count})
        return TrialRecord(1, {}, config, history=after(*values)).scores["ARS"]

    assert ars(3, 10.0, 20.0, 60.0, 40.0) == 40.0
    assert ars(3, 10.0) == 10.0
    assert ars(1, 10.0, 20.0) == 20.0
    assert ars(2, 10.0, None, 20.0) == 15.0, "epochs without a validation do not count"
    assert ars(3, 10.0, 20.0, None) == 0.0
