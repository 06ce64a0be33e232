import pytest
import torch

from colotride.defenses import CollapsenessSettings, StepInfo
from colotride.defenses.anchor import anchor_objective, top_ranked_term
from colotride.defenses.candidate import candidate_objective
from colotride.defenses.direction import assist_enabled, direction
from colotride.losses import nearest_half
from tests.defenses.scenes import triplets_at
from tests.toys import chord, on_circle

ATTACK, ASSIST = torch.tensor(1.0), torch.tensor(-1.0)
MEAN = CollapsenessSettings(attention_factor=0)
FOCUSED = CollapsenessSettings(attention_factor=10)


def test_sigma_flips_exactly_when_collapseness_crosses_zero():
    values = torch.tensor([-0.5, -1e-7, 0.0, 1e-7, 0.5])
    assert [direction(c, assist=True).item() for c in values] == [1, 1, 1, -1, -1]


def test_without_assist_every_batch_is_attacked():
    assert [direction(torch.tensor(c), assist=False).item() for c in (-1.0, 0.0, 1.0)] == [1, 1, 1]


def test_assist_is_disabled_in_the_first_fraction_of_the_epochs():
    enabled = [assist_enabled(StepInfo(epoch, 9, 0), 1 / 3) for epoch in range(9)]
    assert enabled == [False] * 3 + [True] * 6
    assert assist_enabled(StepInfo(0, 9, 0), 0.0)
    assert not assist_enabled(StepInfo(8, 9, 0), 1.0)


def test_cap_minimises_the_distance_of_collapseness_to_zero_from_the_healthy_side():
    triplets = triplets_at([0, 100], [20, 90], [60, 190])
    value = candidate_objective(triplets, ATTACK, MEAN)(on_circle(20, 90, 60, 190))
    mean_hardness = ((chord(20) - chord(60)) + (chord(10) - chord(90))) / 2
    assert value.item() == pytest.approx(-mean_hardness, abs=1e-5)


def test_cap_assist_minimises_a_positive_collapseness_and_both_stop_at_zero():
    hard = triplets_at([0], [80], [30])
    moved = on_circle(80, 30)
    assert candidate_objective(hard, ASSIST, MEAN)(moved).item() == pytest.approx(chord(80) - chord(30), abs=1e-5)
    assert candidate_objective(hard, ATTACK, MEAN)(moved).item() == 0
    easy = triplets_at([0], [30], [80])
    assert candidate_objective(easy, ASSIST, MEAN)(on_circle(30, 80)).item() == 0


def test_another_stop_ends_attack_and_assist_there():
    hard = triplets_at([0], [80], [30])
    moved, reached = on_circle(80, 30), chord(80) - chord(30)
    for target in (0.3, reached, 0.9):
        attack, assist = (candidate_objective(hard, sigma, MEAN, target)(moved).item() for sigma in (ATTACK, ASSIST))
        assert attack == pytest.approx(max(0.0, target - reached), abs=1e-5)
        assert assist == pytest.approx(max(0.0, reached - target), abs=1e-5)
        # The anchor moves the same C; L_tr is off while assisting.
        anchor = anchor_objective(hard, ASSIST, MEAN, stop_at=target)(on_circle(0)).item()
        assert anchor == pytest.approx(max(0.0, reached - target), abs=1e-5)


@pytest.mark.parametrize("weighting", ["near", "far"])
@pytest.mark.parametrize(("sigma", "degrees"), [(ATTACK, ([20, 35], [60, 85])), (ASSIST, ([60, 85], [20, 35]))])
def test_a_step_of_cap_changes_the_mean_hardness_in_the_direction_of_sigma(weighting, sigma, degrees):
    positives, negatives = degrees
    settings = CollapsenessSettings(attention_factor=10, weighting=weighting)
    triplets = triplets_at([0, 0], positives, negatives)
    candidates = on_circle(*positives, *negatives).requires_grad_()
    candidate_objective(triplets, sigma, settings)(candidates).backward()
    moved = torch.nn.functional.normalize(candidates.detach() - 0.01 * candidates.grad, dim=1)

    def hardness(points):
        positive, negative = (points - on_circle(0, 0, 0, 0)).norm(dim=1).chunk(2)
        return (positive - negative).mean()

    change = hardness(moved) - hardness(candidates.detach())
    assert change.sign() == sigma


def anp_by_hand(anchor, positive, negative, moved, lam):
    """Eq. 11-12 in the attack direction, in Python's floats, for angles on one side of the circle."""
    import math

    def d(a, b):
        return chord(abs(a - b))

    def weighted(values):
        raw = [math.exp(-lam * v) for v in values]
        return sum(w / sum(raw) * v for w, v in zip(raw, values, strict=True))

    to_p = [d(m, p) for m, p in zip(moved, positive, strict=True)]
    to_n = [d(m, n) for m, n in zip(moved, negative, strict=True)]
    clean = [d(a, n) for a, n in zip(anchor, negative, strict=True)]
    top = sorted(range(len(anchor)), key=lambda i: clean[i])[: max(1, len(anchor) // 2)]
    first = max(0.0, -(weighted(to_p) - weighted(to_n)))
    gate = math.exp(-max(0.0, weighted(to_n) - weighted(to_p)))
    shift = sum(d(m, a) for m, a in zip(moved, anchor, strict=True)) / len(anchor)
    return first, gate * max(0.0, sum(to_n[i] for i in top) / len(top) - shift)


ANGLES = {"anchor": [0, 10, 20, 30], "positive": [5, 22, 27, 50], "negative": [60, 95, 70, 120]}
MOVED = [3, 12, 26, 33]


def test_anp_is_the_hardness_term_plus_the_top_ranked_term():
    triplets = triplets_at(ANGLES["anchor"], ANGLES["positive"], ANGLES["negative"])
    first, top_ranked = anp_by_hand(**ANGLES, moved=MOVED, lam=10)
    assert first > 0
    assert top_ranked > 0
    got = anchor_objective(triplets, ATTACK, FOCUSED)(on_circle(*MOVED))
    assert got.item() == pytest.approx(first + top_ranked, abs=1e-4)


def test_the_disputed_hardness_term_of_anp_can_be_reversed_or_left_out():
    triplets = triplets_at(ANGLES["anchor"], ANGLES["positive"], ANGLES["negative"])
    _, top_ranked = anp_by_hand(**ANGLES, moved=MOVED, lam=10)
    for reading in ("released", "off"):
        got = anchor_objective(triplets, ATTACK, FOCUSED, reading)(on_circle(*MOVED))
        assert got.item() == pytest.approx(top_ranked, abs=1e-4), reading
    hard = triplets_at([0], [90], [20])
    released = anchor_objective(hard, ATTACK, MEAN, "released")(on_circle(0))
    assert released.item() > chord(90) - chord(20)


def test_the_top_ranked_term_is_off_while_assisting():
    hard = triplets_at([0, 0], [80, 90], [30, 40])
    got = anchor_objective(hard, ASSIST, MEAN)(on_circle(0, 0))
    expected = ((chord(80) - chord(30)) + (chord(90) - chord(40))) / 2
    assert got.item() == pytest.approx(expected, abs=1e-5)


def test_the_top_ranked_term_pulls_only_towards_the_nearest_half_of_the_negatives():
    triplets = triplets_at([0, 0], [10, 10], [40, 150])
    moved = on_circle(1, 1).requires_grad_()
    anchor_objective(triplets, ATTACK, MEAN, "off")(moved).backward()
    pull = -(moved.grad * on_circle(91, 91)).sum(dim=1)
    assert pull[0] > pull[1]


def test_the_gate_grows_to_one_as_the_weighted_gap_closes():
    shift, top = torch.zeros(2), nearest_half(torch.tensor([0.5, 0.6]))
    to_negative = torch.tensor([0.5, 0.5])
    values = [top_ranked_term(to_negative - gap, to_negative, shift, top, MEAN).item() for gap in (0.4, 0.1, 0.0)]
    assert values[0] < values[1] < values[2] == pytest.approx(0.5)


def test_without_its_stop_an_attack_goes_on_beyond_zero():
    hard = triplets_at([0], [80], [30])
    value = chord(80) - chord(30)
    assert candidate_objective(hard, ATTACK, MEAN, None)(on_circle(80, 30)).item() == pytest.approx(-value, abs=1e-5)
    assert anchor_objective(hard, ASSIST, MEAN, stop_at=None)(on_circle(60)).item() == pytest.approx(
        chord(20) - chord(30), abs=1e-5
    )


@pytest.mark.parametrize(("sigma", "term"), [(ATTACK, "raise"), (ATTACK, "released"), (ASSIST, "raise")])
def test_a_step_of_anp_goes_where_its_reading_says(sigma, term):
    """Attack raises the mean hardness, or (released) at least nears the top negatives; assist lowers the hardness."""
    positives, negatives = ([20, 35], [60, 85]) if sigma > 0 else ([60, 85], [20, 35])
    triplets = triplets_at([0, 0], positives, negatives)
    # Just off the clean anchors, where the shift of L_tr has a gradient.
    anchors = on_circle(1, 1).requires_grad_()
    anchor_objective(triplets, sigma, FOCUSED, term)(anchors).backward()
    moved = torch.nn.functional.normalize(anchors.detach() - 0.01 * anchors.grad, dim=1)
    start = on_circle(1, 1)

    def hardness(points):
        return ((points - on_circle(*positives)).norm(dim=1) - (points - on_circle(*negatives)).norm(dim=1)).mean()

    nearest = min(negatives)
    if sigma > 0:
        assert (moved - on_circle(nearest, nearest))[0].norm() < (start - on_circle(nearest, nearest))[0].norm()
    else:
        assert hardness(moved) < hardness(start)
