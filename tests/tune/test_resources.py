import math

import pytest

from colotride.errors import SearchError
from colotride.tune.resources import TrialResources, capacity

SMALL, BIG = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("resources", "machines", "trials"),
    [
        (TrialResources(1, 0.0, None), [SMALL], 2),
        (TrialResources(1, 0.0, None), [SMALL, SMALL], 4),
        (TrialResources(2, 0.0, None), [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        (TrialResources(1, 0.0, 1), [SMALL], 1),
        (TrialResources(1, 0.0, 9), [SMALL], 2),
        (TrialResources(1, 1.0, None), [BIG], 2),
        (TrialResources(1, 0.25, None), [BIG], 8),
        # Part of a GPU is on one GPU: 0.4 fits twice on each, although two GPUs hold it five times in sum.
        (TrialResources(1, 0.4, None), [BIG], 4),
        (TrialResources(8, 0.25, None), [BIG], 2),
        # Two workers of a core each and what drives them need more than two cores.
        (TrialResources(1, 0.0, None, 2), [{"CPU": 3.0}], 1),
        (TrialResources(1, 0.0, None, 2), [SMALL, SMALL], 1),
        (TrialResources(1, 1.0, None, 2), [BIG], 1),
        (TrialResources(4, 1.0, None, 2), [BIG, BIG], 2),
    ],
)
def test_as_many_trials_as_fit(resources, machines, trials):
    assert capacity(resources, machines) == trials


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        (TrialResources(1, 0.0, 0), "--concurrent 0 runs nothing"),
        (TrialResources(0, 0.0, None), "--cpus-per-trial 0 is too few"),
        (TrialResources(3, 0.0, None), "--cpus-per-trial 3 is more than any machine here has \\(2\\)"),
        (TrialResources(1, 0.5, None), "--gpus-per-trial 0.5 is more than any machine here has \\(0\\)"),
        (TrialResources(1, -1.0, None), "--gpus-per-trial -1 is not a number of GPUs"),
        (TrialResources(1, math.nan, None), "--gpus-per-trial nan is not a number of GPUs"),
        (TrialResources(1, 0.0, None, 0), "--workers-per-trial 0 trains nothing"),
        # Ray Train would wait for its second worker without end.
        (
            TrialResources(1, 0.0, None, 2),
            "--workers-per-trial 2 with 1 CPUs each and 0.01 CPU that drives them do not fit",
        ),
        (TrialResources(1, 0.5, None, 2), "each has no GPU or one"),
    ],
)
def test_what_no_machine_can_hold_is_refused(resources, line):
    with pytest.raises(SearchError, match=line):
        capacity(resources, [SMALL])


def test_the_line_names_the_option_of_the_command_that_was_typed():
    with pytest.raises(SearchError, match="--cpus-per-run 3 is more than any machine"):
        capacity(TrialResources(cpus=3), [SMALL], "run")


def test_a_trial_that_ran_out_of_memory_gets_its_gpu_alone():
    assert TrialResources(1, 0.25, None).request() == {"CPU": 1.0, "GPU": 0.25}
    assert TrialResources(1, 0.25, None).request(exclusive=True) == {"CPU": 1.0, "GPU": 1.0}
    assert TrialResources(1, 0.0, None).request(exclusive=True) == {"CPU": 1.0, "GPU": 0.0}
