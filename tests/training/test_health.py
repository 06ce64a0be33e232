import math

import pytest

from colotride.training.health import HealthSettings, failure_of

HEALTHY = {"loss": 0.12, "gradient_norm": 1.5, "distance_anchor_negative": 0.6}


def check(**changes):
    found = failure_of(HealthSettings(), [HEALTHY, HEALTHY | changes, HEALTHY | changes], margin=0.2)
    return found and found[0]


def test_a_healthy_epoch_passes():
    assert check() is None


def test_a_point_that_pays_the_margin_is_a_collapse():
    assert check(distance_anchor_negative=0.01, loss=0.2) == "collapsed"


def test_a_small_embedding_that_still_separates_is_no_collapse():
    assert check(distance_anchor_negative=0.01, loss=0.15) is None


def test_a_hard_batch_with_distances_apart_is_no_collapse():
    assert check(loss=0.4) is None


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_nan_is_named(name):
    assert check(**{name: math.nan}) == "nan"


@pytest.mark.parametrize("changes", [{"loss": math.inf}, {"gradient_norm": math.inf}, {"gradient_norm": 1e5}])
def test_divergence_is_named(changes):
    assert check(**changes) == "diverged"


COLLAPSED = HEALTHY | {"distance_anchor_negative": 0.0, "loss": 0.2}


def test_one_shrunken_epoch_is_not_yet_a_collapse():
    assert failure_of(HealthSettings(), [COLLAPSED], 0.2) is None
    assert failure_of(HealthSettings(), [COLLAPSED, HEALTHY, COLLAPSED], 0.2) is None
    assert failure_of(HealthSettings(), [HEALTHY, COLLAPSED, COLLAPSED], 0.2) is not None


def test_a_limit_of_zero_never_calls_a_collapse():
    assert failure_of(HealthSettings(collapse_distance=0), [COLLAPSED, COLLAPSED], 0.2) is None
