import numpy as np
import pytest
from scipy import stats

from colotride.tune.seed_statistics import SeedStatistics, difference, difference_lines, verdict_rows


def welch(one, other):
    """Welch's interval, written out."""
    one, other = np.array(one), np.array(other)
    parts = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(other) - 1))
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    mean = one.mean() - other.mean()
    return mean, mean - half, mean + half


@pytest.mark.parametrize(
    ("one", "other", "beyond"),
    [([30.0, 31.0, 32.0], [20.0, 21.5, 22.0], True), ([30.0, 25.0, 35.0], [28.0, 24.0, 33.0], False)],
)
def test_a_difference_is_told_from_noise_by_welchs_interval(one, other, beyond):
    found = difference(one, other)
    assert (found.mean, found.low, found.high) == pytest.approx(welch(one, other))
    assert found.beyond_noise == beyond


def test_of_a_single_seed_the_noise_is_unknown():
    assert difference([30.0], [20.0, 21.0]) is None
    rows = verdict_rows({"default": statistics("default", [20.0]), "best": statistics("best", [30.0])}, "ARS")
    assert rows[1]["ARS against default"] == "+10.0, noise unknown (one seed)"


def test_equal_values_without_spread_differ_by_nothing():
    assert not difference([5.0, 5.0], [5.0, 5.0]).beyond_noise


def statistics(name, ars, lost=()):
    return SeedStatistics(name, {"R@1": ars, "mAP": ars, "ERS": ars, "ARS": ars}, lost)


def test_the_verdict_as_text():
    rows = verdict_rows(
        {"default": statistics("default", [20.0, 22.0]), "best": statistics("best", [40.0, 42.0], ("nan",))}, "ARS"
    )
    assert rows[0]["ARS"] == "21.0 ± 1.4"
    assert rows[0]["ARS against default"] == ""
    assert rows[1]["seeds"] == "2 (nan lost)"
    mean, low, high = welch([40.0, 42.0], [20.0, 22.0])
    assert difference_lines(rows) == [
        f"best: ARS against default {mean:+.1f} [{low:+.1f}, {high:+.1f}] (95 %), beyond the noise"
    ]


def test_a_configuration_that_was_lost_with_every_seed_stands_at_zero():
    lost = SeedStatistics("best", {}, ("nan", "nan"))
    rows = verdict_rows({"default": statistics("default", [20.0, 22.0]), "best": lost}, "ARS")
    assert rows[1]["ARS"] == "0.0"
    assert rows[1]["ARS against default"].startswith("-21.0")
