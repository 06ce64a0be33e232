import pytest
import torch

from colotride.losses import (
    multi_similarity_loss,
    nearest_half,
    relative_triplet_loss,
    top_ranked_triplet_loss,
    triplet_loss,
)
from tests.toys import on_circle


def test_triplet_loss_counts_only_triplets_inside_the_margin():
    d_ap, d_an = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.6, 0.7, 0.2])
    # 0.5 - 0.6 + 0.2 = 0.1; exactly at the margin: 0; 0.5 - 0.2 + 0.2 = 0.5
    assert triplet_loss(d_ap, d_an, 0.2).item() == pytest.approx((0.1 + 0.0 + 0.5) / 3, abs=1e-6)


def test_the_relative_triplet_loss_is_in_units_of_the_mean_distance():
    d_ap, d_an = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.6, 1.1, 0.2])
    mean = (0.5 + (0.6 + 1.1 + 0.2) / 3) / 2
    expected = ((0.5 - 0.6) / mean + 0.3 + 0.0 + (0.5 - 0.2) / mean + 0.3) / 3
    assert relative_triplet_loss(d_ap, d_an, 0.3).item() == pytest.approx(expected, abs=1e-6)


def test_shrinking_the_embedding_does_not_change_the_relative_triplet_loss_and_no_gradient_shrinks_it():
    d_ap, d_an = torch.rand(9) + 0.1, torch.rand(9) + 0.1
    scale = torch.tensor(0.05, requires_grad=True)
    loss = relative_triplet_loss(scale * d_ap, scale * d_an, 0.2)
    torch.testing.assert_close(loss, relative_triplet_loss(d_ap, d_an, 0.2))
    loss.backward()
    assert abs(scale.grad.item()) < 1e-4
    assert relative_triplet_loss(torch.zeros(3), torch.zeros(3), 0.2).item() == pytest.approx(0.2)


def test_nearest_half_takes_the_smaller_half_and_at_least_one():
    assert nearest_half(torch.tensor([0.9, 0.1, 0.5, 0.3, 0.7])).tolist() == [False, True, False, True, False]
    assert nearest_half(torch.tensor([0.4])).tolist() == [True]


def test_top_ranked_triplet_compares_the_nearest_halves():
    d_ap, d_an = torch.tensor([0.1, 0.3, 1.5, 1.9]), torch.tensor([0.9, 0.15, 0.2, 1.2])
    expected = 0.5 * ((0.1 + 0.3) / 2 - (0.15 + 0.2) / 2 + 0.04)
    assert top_ranked_triplet_loss(d_ap, d_an, 0.5, 0.04).item() == pytest.approx(expected)


def test_top_ranked_triplet_is_zero_once_the_nearest_halves_are_apart():
    d_ap, d_an = torch.tensor([0.1, 1.9]), torch.tensor([0.5, 1.9])
    assert top_ranked_triplet_loss(d_ap, d_an, 0.5, 0.04).item() == 0


def test_only_the_nearest_halves_are_trained_by_the_top_ranked_triplet():
    d_ap = torch.tensor([0.5, 1.5], requires_grad=True)
    d_an = torch.tensor([0.4, 1.4], requires_grad=True)
    top_ranked_triplet_loss(d_ap, d_an, 0.5, 0.04).backward()
    assert d_ap.grad.tolist() == [0.5, 0.0]
    assert d_an.grad.tolist() == [-0.5, 0.0]


def multi_similarity_by_hand(embeddings, labels):
    """Wang et al. (2019), image by image."""
    import math

    total = 0.0
    for i in range(len(labels)):
        s = [float(embeddings[i] @ embeddings[j]) for j in range(len(labels))]
        positives = [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        negatives = [j for j in range(len(labels)) if labels[j] != labels[i]]
        kept_p = [j for j in positives if s[j] < max(s[k] for k in negatives) + 0.1]
        kept_n = [j for j in negatives if s[j] > min(s[k] for k in positives) - 0.1]
        total += math.log(1 + sum(math.exp(-2 * (s[j] - 0.5)) for j in kept_p)) / 2
        total += math.log(1 + sum(math.exp(50 * (s[j] - 0.5)) for j in kept_n)) / 50
    return total / len(labels)


def test_multi_similarity_is_the_papers_formula_with_its_mining():
    embeddings = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(12) % 3
    got = multi_similarity_loss(embeddings, labels).item()
    assert got == pytest.approx(multi_similarity_by_hand(embeddings, labels), rel=1e-4)


def test_multi_similarity_of_well_separated_classes_is_small_and_differentiable():
    embeddings = on_circle(0, 1, 180, 181).requires_grad_()
    loss = multi_similarity_loss(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() < 1e-6
    assert torch.isfinite(embeddings.grad).all()
