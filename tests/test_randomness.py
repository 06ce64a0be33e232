"""Numbers that depend on seed and key alone."""

import torch
from scipy.stats import kstest, norm

from colotride.randomness import derive_seed, hashed_normal, hashed_uniform


def test_normal_numbers_are_the_uniform_ones_through_the_inverse_cdf():
    keys = torch.tensor([5, 0, 123456])
    uniform = hashed_uniform(3, keys, 7)
    assert torch.allclose(hashed_normal(3, keys, 7), torch.from_numpy(norm.ppf(uniform.numpy())), atol=1e-6)


def test_normal_numbers_are_normal_and_finite():
    drawn = hashed_normal(derive_seed(0, "test"), torch.arange(2000), 5)
    assert bool(torch.isfinite(drawn).all())
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
