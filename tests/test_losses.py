import pytest
import torch

from colotride.losses import nearest_half, top_ranked_triplet_loss, triplet_loss


def test_triplet_loss_counts_only_triplets_inside_the_margin():
    d_ap, d_an = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.6, 0.7, 0.2])
    # 0.5 - 0.6 + 0.2 = 0.1; exactly at the margin: 0; 0.5 - 0.2 + 0.2 = 0.5
    assert triplet_loss(d_ap, d_an, 0.2).item() == pytest.approx((0.1 + 0.0 + 0.5) / 3, abs=1e-6)


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
