"""APGD on linear and quadratic objectives, whose best points are known."""

import itertools

import pytest
import torch

from colotride.evaluation.apgd import AutoPGD, checkpoints
from colotride.pgd import Ball, perturb
from colotride.pgd_settings import Budget
from tests.toys import FlatModel, random_images


class Pixels(torch.nn.Module):
    """The embedding is the image itself."""

    def forward(self, images):
        return images.flatten(1)


def middle(count=6, shape=(3, 2, 2)):
    return 0.3 + 0.4 * random_images(count, shape)


def test_checkpoints_are_those_of_the_paper():
    """p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), as shares of the steps."""
    shares, distance = [0.22], 0.22
    while shares[-1] < 1:
        distance = max(distance - 0.03, 0.06)
        shares.append(shares[-1] + distance)
    assert checkpoints(100) == [round(100 * share) for share in shares if share < 1 - 1e-9]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_point_of_a_linear_objective_is_reached(norm):
    images = middle()
    direction = torch.randn(12, generator=torch.Generator().manual_seed(0))
    moved = perturb(Pixels(), images, lambda e: e @ direction, Budget(0.1, 1.0, 12, norm), rule=AutoPGD)
    step = direction.sign() if norm == "linf" else direction / direction.norm()
    torch.testing.assert_close(moved.flatten(1), images.flatten(1) - 0.1 * step, atol=1e-4, rtol=0)


def test_the_farthest_point_of_a_linear_embedding_is_the_best_corner():
    """max |W d| over the cube is at a corner: all 4096 are tried."""
    random = torch.Generator().manual_seed(1)
    weights, images = torch.randn(12, 3, generator=random), middle(16)
    clean = images.flatten(1) @ weights
    corners = torch.tensor(list(itertools.product([-0.1, 0.1], repeat=12)))
    best = float((corners @ weights).norm(dim=1).max())
    start = images + 0.2 * (torch.rand(images.shape, generator=random) - 0.5)
    moved = perturb(
        Pixels(), images, lambda e: -(e @ weights - clean).norm(dim=1), Budget(0.1, 1.0, 40), start, rule=AutoPGD
    )
    reached = (moved.flatten(1) @ weights - clean).norm(dim=1)
    assert float(reached.max()) == pytest.approx(best, rel=1e-3)
    assert float(reached.mean()) > 0.85 * best
    assert float(reached.max()) <= best * (1 + 1e-5)


def test_the_farthest_point_in_l2_is_along_the_first_singular_vector():
    random = torch.Generator().manual_seed(2)
    weights, images = torch.randn(12, 3, generator=random), middle(16)
    clean = images.flatten(1) @ weights
    best = 0.1 * float(torch.linalg.svdvals(weights).max())
    start = images + 0.05 * (torch.rand(images.shape, generator=random) - 0.5)
    moved = perturb(
        Pixels(), images, lambda e: -(e @ weights - clean).norm(dim=1), Budget(0.1, 1.0, 40, "l2"), start, rule=AutoPGD
    )
    reached = (moved.flatten(1) @ weights - clean).norm(dim=1)
    torch.testing.assert_close(reached, torch.full((16,), best), rtol=0.02, atol=0)


def test_steps_are_halved_where_the_loss_oscillates_and_the_best_point_is_kept():
    """A kink that a step of twice the radius jumps over: |x - target| of every pixel."""
    images = middle(8, (1, 1, 1))
    target = images.flatten(1) + 0.037
    losses = []

    def objective(embeddings):
        found = (embeddings - target).abs().sum(dim=1)
        losses.append(found.detach())
        return found

    moved = perturb(Pixels(), images, objective, Budget(0.1, 1.0, 40), rule=AutoPGD)
    final = (moved.flatten(1) - target).abs()
    assert float(final.max()) < 0.005, "PGD with a fixed step would stay a step away"
    torch.testing.assert_close(final[:, 0], torch.stack(losses).amin(dim=0))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_gets_what_it_would_get_alone(norm):
    """Although the others keep the loop running after its objective is saturated."""
    model, images = FlatModel(), random_images(9)

    def objective(embeddings):
        return torch.relu(embeddings[:, 0] + 0.1)

    budget = Budget(0.3, 1.0, 20, norm)
    together = perturb(model, images, objective, budget, rule=AutoPGD)
    alone = [perturb(model, image[None], objective, budget, rule=AutoPGD) for image in images]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_stays_in_the_ball_and_in_the_pixel_range(norm):
    images = random_images(12)
    ball = Ball.around(images, 0.4, norm)
    moved = perturb(FlatModel(), images, lambda e: e[:, 0], Budget(0.4, 1.0, 15, norm), rule=AutoPGD)
    torch.testing.assert_close(ball.project_(moved.clone()), moved, atol=1e-6, rtol=0)
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
