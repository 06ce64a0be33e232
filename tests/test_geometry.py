import math

import pytest
import torch

from colotride import geometry
from colotride.geometry import distances, offset_distances
from tests.toys import chord, on_circle


def test_distance_is_the_chord_of_the_unit_circle():
    got = geometry.distances(on_circle(0, 0, 0), on_circle(60, 90, 180))
    torch.testing.assert_close(got, torch.tensor([1.0, math.sqrt(2), 2.0]))


def test_distance_of_equal_points_has_gradient_zero_instead_of_nan():
    point = on_circle(30).requires_grad_()
    geometry.distances(point, on_circle(30)).sum().backward()
    assert torch.equal(point.grad, torch.zeros(1, 2))


def test_the_cosine_distance_is_half_the_squared_chord():
    a, b = on_circle(0, 10, 0), on_circle(60, 100, 180)
    chords = geometry.distances(a, b)
    torch.testing.assert_close(geometry.distances(a, b, "cosine"), chords.square() / 2)
    torch.testing.assert_close(geometry.distance_matrix(a, b, "cosine").diagonal(), chords.square() / 2)


def test_distance_matrix_agrees_with_pairwise_distances_and_stays_differentiable_at_zero():
    a, b = on_circle(0, 45, 100).requires_grad_(), on_circle(0, 45, 181, 300)
    matrix = geometry.distance_matrix(a, b)
    expected = [[chord(abs(x - y)) for y in (0, 45, 181, 300)] for x in (0, 45, 100)]
    torch.testing.assert_close(matrix.detach(), torch.tensor(expected), atol=1e-3, rtol=0)
    matrix.sum().backward()
    assert torch.isfinite(a.grad).all()


def test_hardness_is_positive_where_the_negative_is_nearer():
    got = geometry.hardness(torch.tensor([0.5, 1.0]), torch.tensor([0.7, 0.4]))
    torch.testing.assert_close(got, torch.tensor([-0.2, 0.6]))


def by_definition(d_ap: list[float], d_an: list[float], factor: float, weighting: str) -> float:
    """Eq. 5-7 word for word, in Python's floats."""

    def weighted(values: list[float]) -> float:
        if weighting == "near":
            raw = [math.exp(-factor * (d - min(values))) for d in values]
        else:
            raw = [math.exp(factor * (d - max(values))) for d in values]
        return sum(w / sum(raw) * d for w, d in zip(raw, values, strict=True))

    return weighted(d_ap) - weighted(d_an)


@pytest.mark.parametrize("weighting", ["near", "far"])
@pytest.mark.parametrize("factor", [0.0, 2.0, 9.5, 10.0, 1000.0])
def test_collapseness_is_the_papers_weighted_difference(factor, weighting):
    d_ap, d_an = [0.3, 0.9, 0.1, 1.7], [0.8, 0.2, 1.1, 0.6]
    got = geometry.collapseness(torch.tensor(d_ap), torch.tensor(d_an), factor, weighting)
    assert got.item() == pytest.approx(by_definition(d_ap, d_an, factor, weighting), abs=1e-5)


def test_attention_factor_zero_makes_collapseness_the_mean_hardness():
    d_ap, d_an = torch.rand(7), torch.rand(7)
    torch.testing.assert_close(
        geometry.collapseness(d_ap, d_an, 0.0), geometry.hardness(d_ap, d_an).mean(), atol=1e-6, rtol=0
    )


def test_a_large_attention_factor_looks_at_the_nearest_or_the_farthest_alone():
    d_ap, d_an = torch.tensor([0.2, 1.0]), torch.tensor([0.5, 1.5])
    assert geometry.collapseness(d_ap, d_an, 1e4, "near").item() == pytest.approx(0.2 - 0.5)
    assert geometry.collapseness(d_ap, d_an, 1e4, "far").item() == pytest.approx(1.0 - 1.5)


def test_attention_to_hard_triplets_looks_at_far_positives_and_near_negatives():
    d_ap, d_an = torch.tensor([0.2, 1.0]), torch.tensor([0.5, 1.5])
    assert geometry.collapseness(d_ap, d_an, 1e4, "hard").item() == pytest.approx(1.0 - 0.5)
    # Every triplet is semi-hard, d(A,P) < d(A,N): only hard attention can find that they collapse.
    signs = [geometry.collapseness(d_ap, d_an, 10.0, weighting).sign().item() for weighting in ("near", "far", "hard")]
    assert signs == [-1, -1, 1]


def test_collapseness_ignores_the_order_of_the_batch():
    d_ap, d_an, order = torch.rand(9), torch.rand(9), torch.randperm(9)
    torch.testing.assert_close(
        geometry.collapseness(d_ap, d_an, 5.0), geometry.collapseness(d_ap[order], d_an[order], 5.0)
    )


@pytest.mark.parametrize("weighting", ["near", "far"])
def test_scaling_the_distances_is_scaling_lambda(weighting):
    d_ap, d_an = torch.tensor([0.3, 0.9, 0.1]), torch.tensor([0.8, 0.2, 0.6])
    shrunk = geometry.collapseness(0.1 * d_ap, 0.1 * d_an, 50.0, weighting)
    torch.testing.assert_close(shrunk, 0.1 * geometry.collapseness(d_ap, d_an, 5.0, weighting))


@pytest.mark.parametrize("weighting", ["near", "far"])
def test_detached_weights_give_every_positive_a_push_outwards(weighting):
    d_ap = torch.tensor([0.2, 0.6, 1.2], requires_grad=True)
    geometry.collapseness(d_ap, torch.ones(3), 10.0, weighting, "detached").backward()
    torch.testing.assert_close(d_ap.grad, geometry.attention_weights(d_ap.detach(), 10.0, weighting))


def test_through_the_weights_a_far_positive_is_pulled_the_wrong_way():
    d_ap = torch.tensor([0.2, 0.6, 1.2], requires_grad=True)
    geometry.collapseness(d_ap, torch.ones(3), 10.0, "near", "through").backward()
    assert d_ap.grad[1] < 0, "growing d(A,P) should raise C, but loses weight faster than it gains"


def test_separability_is_unmoved_by_shrinkage_and_zero_for_entangled_classes():
    d_ap, d_an = torch.tensor([0.4, 0.6]), torch.tensor([0.9, 1.1])
    assert geometry.separability(d_ap, d_an).item() == pytest.approx(1.0)
    assert geometry.separability(d_ap / 100, d_an / 100).item() == pytest.approx(1.0)
    assert geometry.separability(d_ap, d_ap).item() == 0


def test_separability_of_a_point_is_finite():
    assert geometry.separability(torch.zeros(3), torch.zeros(3)).item() == 0


def test_relative_shift_counts_in_units_of_the_positive_distance():
    shift = geometry.distances(on_circle(60, 60), on_circle(0, 120))
    got = geometry.relative_shift(shift, torch.tensor([0.5, 0.5]))
    assert got.item() == pytest.approx(2.0)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_offset_distance_has_a_gradient_at_zero_and_is_the_plain_one_elsewhere(metric):
    a, b = on_circle(0, 30, 90), on_circle(40, 80, 270)
    torch.testing.assert_close(offset_distances(a, b, metric), distances(a, b, metric), atol=5e-6, rtol=0)
    same = a.clone().requires_grad_()
    offset_distances(same, a, metric).sum().backward()
    assert (same.grad.abs() > 0).all()
    plain = a.clone().requires_grad_()
    distances(plain, a).sum().backward()
    assert (plain.grad == 0).all()
