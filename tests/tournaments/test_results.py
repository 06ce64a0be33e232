"""The tournament's statistics against slow, obvious computations and results made by hand."""

import random
import statistics

import pytest
from scipy import stats

from colotride.tournaments.page import draw_fronts
from colotride.tournaments.results import (
    FinalistResult,
    front,
    hypervolume,
    hypervolumes,
    match_rows,
    matches,
    mean_of,
    rows,
    sentence,
    volume_rows,
)

NOISE = (0.0, 1.0, -1.0)
"""Of the three seeds, the same for everybody: pairs of seeds tell apart what the spread of one defense hides."""


def finalist(defense, trial, recall, robustness, own=(0.1, 0.0, -0.1), ends=(), validated=None):
    seeds = range(3)
    scores = {
        "R@1": {seed: recall + NOISE[seed] for seed in seeds},
        "ARS": {seed: robustness + 5 * NOISE[seed] + own[seed] for seed in seeds},
        **{name: dict.fromkeys(seeds, 10.0) for name in ("mAP", "ES:R", "ERS")},
    }
    return FinalistResult(
        defense,
        trial,
        {"margin": 0.2},
        {"ARS": float(validated or robustness)},
        scores,
        dict.fromkeys(seeds, 0.5),
        ends,
    )


def dominated_share(points, cells=200):
    """The hypervolume by counting cells of the square."""
    count = 0
    for column in range(cells):
        for row in range(cells):
            x, y = 100 * (column + 0.5) / cells, 100 * (row + 0.5) / cells
            count += any(x <= first and y <= second for first, second in points)
    return 100 * count / cells**2


def test_the_hypervolume_is_what_counting_cells_finds():
    draw = random.Random(0)
    for size in (1, 2, 5, 9):
        points = [(draw.uniform(0, 100), draw.uniform(0, 100)) for _ in range(size)]
        assert hypervolume(points) == pytest.approx(dominated_share(points), abs=0.8)
    assert hypervolume([(50.0, 40.0)]) == pytest.approx(20)
    assert hypervolume([(50.0, 40.0), (50.0, 40.0), (40.0, 30.0)]) == pytest.approx(20)
    assert hypervolume([(50.0, 40.0), (80.0, 10.0)]) == pytest.approx(20 + 3)


def test_the_front_holds_what_no_other_point_beats():
    points = {"a": (10.0, 50.0), "b": (20.0, 40.0), "c": (15.0, 39.0), "d": (20.0, 41.0), "e": (5.0, 50.0)}
    points["f"] = (90.0, 1.0)
    assert front(points) == ["a", "d", "f"]
    draw = random.Random(1)
    many = {str(i): (draw.random(), draw.random()) for i in range(60)}
    slow = {
        name
        for name, (x, y) in many.items()
        if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in many.values())
    }
    assert set(front(many)) == slow


def test_a_mean_has_students_interval():
    found = mean_of({0: 10.0, 1: 12.0, 2: 17.0})
    half = 4.302653 * statistics.stdev([10, 12, 17]) / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((13, 13 - half, 13 + half), rel=1e-5)
    assert str(mean_of({0: 5.0})) == "5.0"


def test_the_reference_meets_every_finalist_at_equal_or_higher_recall():
    found = matches(
        [
            finalist("colo-tride", 1, 50, 20),
            finalist("colo-tride", 4, 45, 30),
            finalist("act", 1, 44, 28),
            finalist("act", 2, 48, 22),
            finalist("hm", 1, 60, 10),
            finalist("hm", 3, 40, 30.05, own=(0.3, -0.2, 0.1)),
        ],
        "colo-tride",
    )
    assert [(one.other.name, one.reference.name if one.reference else None, one.verdict) for one in found] == [
        ("act #1", "colo-tride #4", "reference ahead"),
        ("act #2", "colo-tride #1", "other ahead"),
        ("hm #1", None, "no finalist with this R@1"),
        ("hm #3", "colo-tride #4", "cannot be told apart"),
    ]
    # The noise that both share cancels: 5 points from seed to seed, and a difference known to nothing but its own.
    assert found[0].robustness.mean == pytest.approx(2.0)
    assert found[0].robustness.high - found[0].robustness.low < 0.1
    assert found[0].retrieval.mean == pytest.approx(1.0)


def test_the_reference_is_chosen_without_a_look_at_the_test_classes():
    lucky = finalist("colo-tride", 4, 50, 30, validated=20)
    chosen = finalist("colo-tride", 2, 50, 25, validated=40)
    rival = finalist("act", 1, 44, 20, own=(0.3, -0.2, 0.1))
    (match,) = matches([lucky, chosen, rival], "colo-tride")
    assert match.reference is chosen
    alone = match.robustness
    many = matches([lucky, chosen, rival, finalist("act", 2, 44, 10), finalist("act", 3, 44, 10)], "colo-tride")
    assert many[0].robustness.mean == pytest.approx(alone.mean)
    t = stats.t.ppf([1 - 0.025, 1 - 0.025 / 3], 2)
    widths = [one.high - one.low for one in (alone, many[0].robustness)]
    assert widths[1] / widths[0] == pytest.approx(t[1] / t[0]), "widened for three matches"


def test_the_picture_holds_a_front_over_recall_and_one_over_precision():
    recall, precision = draw_fronts([finalist("colo-tride", 1, 50, 20), finalist("act", 1, 44, 28)]).axes
    for axes, name, ends in ((recall, "R@1", {50.0, 44.0}), (precision, "mAP", {10.0})):
        assert axes.get_xlabel().startswith(name)
        marks = {float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
        assert marks == ends


def test_the_sentence_counts_the_matches():
    everybody = [
        finalist("colo-tride", 1, 50, 20),
        finalist("act", 1, 44, 18),
        finalist("act", 2, 48, 22),
        finalist("hm", 1, 60, 10),
    ]
    said = sentence(everybody, "colo-tride")
    assert "a higher ARS than 1 of 3 finalists" in said
    assert "a lower one than 1, and cannot be told from 0" in said
    assert "1 retrieve better than every finalist of colo-tride" in said


def test_one_seed_is_not_taken_for_evidence():
    lone = [
        FinalistResult(name, 1, {}, {}, {score: {0: value} for score in ("R@1", "mAP", "ES:R", "ERS", "ARS")}, {0: 1.0})
        for name, value in (("colo-tride", 50.0), ("act", 40.0))
    ]
    (match,) = matches(lone, "colo-tride")
    assert match.robustness is None
    assert "one seed" in match.verdict
    assert "With one seed nothing can be said" in sentence(lone, "colo-tride")
    assert volume_rows(lone, "colo-tride")[1]["against colo-tride"] == "one seed"


def test_the_tables_hold_every_finalist_and_mark_each_defenses_front():
    everybody = [
        finalist("colo-tride", 1, 50, 20, ends=("seed 2 collapsed",)),
        finalist("colo-tride", 5, 40, 19),
        finalist("colo-tride", 4, 45, 30),
        finalist("act", 1, 44, 18),
    ]
    table = rows(everybody)
    assert [(row["defense"], row["trial"], row["front"]) for row in table] == [
        ("colo-tride", "4", "yes"),
        ("colo-tride", "1", "yes"),
        ("colo-tride", "5", ""),
        ("act", "1", "yes"),
    ]
    assert table[1]["ended"] == "2 finished, seed 2 collapsed"
    assert table[0]["ARS"].startswith("30.0 ± 5")
    volumes = {row["defense"]: row for row in volume_rows(everybody, "colo-tride")}
    expected = hypervolumes(everybody, "act")[0] - hypervolumes(everybody, "colo-tride")[0]
    assert expected == pytest.approx(44 * 18.1 / 100 - (45 * 30.1 + 5 * 20.1) / 100)
    assert volumes["act"]["against colo-tride"].startswith("-6.")
    assert [row["against"] for row in match_rows(everybody, "colo-tride")] == ["act #1"]
