import math

import pytest

from colotride.reproduction.appendix_a import shifts_at


def test_in_the_collinear_case_anp_and_cap_together_shift_twice_as_far_as_sip():
    shifts = shifts_at(180.0, gain=1e-3)
    # Eq. 19-21: the one anchor moves t/2, both candidates t/2, all three t/4.
    assert shifts.anchor == pytest.approx(1e-3 / 2 / 3, rel=1e-3)
    assert shifts.candidates == pytest.approx(2 * 1e-3 / 2 / 3, rel=1e-3)
    assert shifts.simultaneous == pytest.approx(1e-3 / 4, rel=1e-3)
    assert shifts.ratio == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("angle", [20.0, 60.0, 90.0, 120.0, 150.0])
def test_for_a_small_gain_the_ratio_follows_from_the_gradients(angle):
    """The anchor's gradient is the difference of two unit vectors, 2 sin(angle / 2) long; a candidate's is 1 long."""
    x = math.sin(math.radians(angle) / 2)
    assert shifts_at(angle, gain=1e-5).ratio == pytest.approx((1 + 2 * x) * (1 + x) / (3 * x), rel=1e-3)


def test_the_ratio_is_larger_for_acute_angles_but_not_for_all():
    assert shifts_at(30.0).ratio > 2.2
    assert shifts_at(60.0, gain=1e-5).ratio == pytest.approx(2, rel=1e-3)
    # The appendix says "more otherwise"; with the best direction for every part it is 3 % less at a right angle.
    assert shifts_at(90.0).ratio == pytest.approx(1.943, abs=2e-3)
