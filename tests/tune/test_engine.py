import math

import pytest

from colotride.errors import SearchError
from colotride.tune.engine import Resources, capacity
from colotride.tune.plan import objectives_of
from colotride.tune.trials import TrialRow, best_first, pareto_front

SMALL, BIG = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("resources", "machines", "trials"),
    [
        (Resources(1, 0, None), [SMALL], 2),
        (Resources(1, 0, None), [SMALL, SMALL], 4),
        (Resources(2, 0, None), [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        (Resources(1, 0, 1), [SMALL], 1),
        (Resources(1, 0, 9), [SMALL], 2),
        (Resources(1, 1, None), [BIG], 2),
        (Resources(1, 0.25, None), [BIG], 8),
        # Part of a GPU is on one GPU: 0.4 fits twice on each, although two GPUs hold it five times in sum.
        (Resources(1, 0.4, None), [BIG], 4),
        (Resources(8, 0.25, None), [BIG], 2),
        # Two workers of a core each and what drives them need more than two cores.
        (Resources(1, 0, None, 2), [{"CPU": 3.0}], 1),
        (Resources(1, 0, None, 2), [SMALL, SMALL], 1),
        (Resources(1, 1, None, 2), [BIG], 1),
        (Resources(4, 1, None, 2), [BIG, BIG], 2),
    ],
)
def test_as_many_trials_as_fit(resources, machines, trials):
    assert capacity(resources, machines) == trials


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        (Resources(1, 0, 0), "--concurrent 0 runs no trial"),
        (Resources(0, 0, None), "--cpus-per-trial 0 is too few"),
        (Resources(3, 0, None), "--cpus-per-trial 3 is more than any machine here has \\(2\\)"),
        (Resources(1, 0.5, None), "--gpus-per-trial 0.5 is more than any machine here has \\(0\\)"),
        (Resources(1, -1.0, None), "--gpus-per-trial -1 is no number of GPUs"),
        (Resources(1, math.nan, None), "--gpus-per-trial nan is no number of GPUs"),
        (Resources(1, 0, None, 0), "--workers-per-trial 0 trains nothing"),
        # Ray Train would wait for its second worker without end.
        (Resources(1, 0, None, 2), "--workers-per-trial 2 with 1 CPUs each and 0.01 CPU that drives them do not fit"),
        (Resources(1, 0.5, None, 2), "each has no GPU or one"),
    ],
)
def test_what_no_machine_can_hold_is_refused(resources, line):
    with pytest.raises(SearchError, match=line):
        capacity(resources, [SMALL])


def test_a_trial_that_ran_out_of_memory_gets_its_gpu_alone():
    assert Resources(1, 0.25, None).needs() == {"CPU": 1.0, "GPU": 0.25}
    assert Resources(1, 0.25, None).needs(alone=True) == {"CPU": 1.0, "GPU": 1.0}
    assert Resources(1, 0.0, None).needs(alone=True) == {"CPU": 1.0, "GPU": 0.0}


def row(number, r1, ars, status="finished"):
    return TrialRow(number, {}, status, 9, {"R@1": r1, "ARS": ars})


def test_the_best_trial_finished_and_ties_go_to_the_earlier_one():
    rows = [row(1, 50, 30), row(2, 50, 40), row(3, 50, 99, "stopped"), row(4, 50, 40)]
    assert [one.number for one in best_first(rows, ["ARS"])] == [2, 4, 1]


def test_a_front_is_what_no_other_trial_beats_in_everything():
    rows = [row(1, 60, 20), row(2, 50, 30), row(3, 49, 29), row(4, 60, 19), row(5, 10, 31), row(6, 99, 99, "stopped")]
    assert [one.number for one in pareto_front(rows, ["R@1", "ARS"])] == [1, 2, 5]
    # From worst to best: R@1 from 10 to 60, ARS from 19 to 31; sums 1.08, 1.72, 1.61, 1, 1.
    assert [one.number for one in best_first(rows, ["R@1", "ARS"])] == [2, 1, 5, 3, 4]


def test_no_finished_trial_is_one_line_that_says_why():
    rows = [row(1, 0, 0, "collapsed"), TrialRow(2, {}, "error", reason="ValueError: bad")]
    with pytest.raises(SearchError, match=r"none of the 2 trials .* collapsed, error \(ValueError: bad\)"):
        best_first(rows, ["ARS"])


@pytest.mark.parametrize(
    ("text", "scores"), [("ars", ("ARS",)), ("r1,ars", ("R@1", "ARS")), ("ERS, map", ("ERS", "mAP"))]
)
def test_objectives_by_their_names(text, scores):
    assert objectives_of(text) == scores


@pytest.mark.parametrize("text", ["accuracy", "", "ars,ars", "ars,,r1"])
def test_an_objective_that_does_not_exist_is_refused(text):
    with pytest.raises(SearchError, match="objective"):
        objectives_of(text)
