"""Perturbations that cost little: random starts, single steps, and the test of whether they still are perturbations."""

from dataclasses import replace

import pytest
import torch

from colotride.defenses.act import Act, ActSettings
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.est import Est, EstSettings
from colotride.defenses.natural import Natural, NaturalSettings
from colotride.defenses.random_start import random_start
from colotride.defenses.strength import perturbation_strength
from colotride.defenses.triplets import mine_triplets
from colotride.distributed.shards import ProcessGroup, Shard
from colotride.pgd_settings import PGDSettings
from tests.defenses.scenes import LATE, MARGIN, RECIPE, draw, healthy, step, triplets_of
from tests.toys import FlatModel, random_images

EPSILON = 0.1


def with_pgd(**values):
    pgd = PGDSettings(**({"epsilon": EPSILON, "step_size": 0.02, "steps": 6, "ramp": "constant"} | values))
    return replace(RECIPE, pgd=pgd)


def act(**values):
    return Act(ActSettings(), with_pgd(**values))


class RippledModel(FlatModel):
    """What it sees repeats with every 0.1 of brightness, so that one step of that size leads back to the start."""

    def forward(self, images):
        return super().forward(0.5 + 0.5 * torch.sin(20 * torch.pi * images))


def test_noise_fills_the_ball_and_not_more():
    images = torch.full((64, 3, 8, 8), 0.5)
    noise = random_start(images, 0.2, "linf", Shard(32), draw()) - images
    assert noise.abs().max() == pytest.approx(0.2, abs=1e-3)
    assert noise.mean().abs() < 0.005
    assert noise.std() == pytest.approx(0.2 / 3**0.5, rel=0.02)
    lengths = (random_start(images, 0.2, "l2", Shard(32), draw()) - images).flatten(1).norm(dim=1)
    assert lengths.max() <= 0.2 + 1e-6
    assert lengths.mean() == pytest.approx(0.1, rel=0.2)


class Divided(ProcessGroup):
    """One of two processes, of which only the size and the place matter."""

    def __init__(self, rank):
        self._rank = rank

    rank = property(lambda self: self._rank)
    size = property(lambda self: 2)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_does_not_depend_on_the_number_of_processes(norm):
    whole = random_images(2 * 5)
    together = random_start(whole, 0.1, norm, Shard(5), draw()).view(2, 5, *whole.shape[1:])
    for rank in range(2):
        shard = Shard(5, Divided(rank))
        own = whole.view(2, 5, *whole.shape[1:])[:, shard.own].flatten(0, 1)
        found = random_start(own, 0.1, norm, shard, draw())
        torch.testing.assert_close(found, together[:, shard.own].flatten(0, 1))


def test_a_single_step_from_noise_is_the_formula_of_fgsm_rs():
    size = 1.25 * EPSILON
    defense = act(steps=1, step_size=size, random_start=1.0)
    _, _, (anchor, positive, negative), _ = step(healthy(), defense)
    clean = triplets_of(healthy(), defense.context)
    assert torch.equal(anchor, clean.anchor)
    # The formula written out, with the generator where mining left it.
    generator = draw()
    mined = mine_triplets(FlatModel(), healthy(), defense.context, MARGIN, generator)
    images = torch.cat([mined.positive, mined.negative])
    noise = EPSILON * (2 * torch.rand(2, len(images) // 2, *images.shape[1:], generator=generator).flatten(0, 1) - 1)
    start = torch.min(torch.max(images + noise, images - EPSILON), images + EPSILON).clamp(0, 1).requires_grad_()
    p, n = FlatModel()(start).chunk(2)
    (p - n).norm(dim=1).mean().backward()
    moved = start.detach() - size * start.grad.sign()
    expected = torch.min(torch.max(moved, images - EPSILON), images + EPSILON).clamp(0, 1)
    torch.testing.assert_close(torch.cat([positive, negative]), expected)


def test_a_defense_with_a_start_of_its_own_keeps_it():
    alike = [step(healthy(), Est(EstSettings(), with_pgd(random_start=noise)))[2][0] for noise in (0.0, 1.0)]
    torch.testing.assert_close(*alike)


def test_a_batch_without_perturbation_draws_no_noise():
    images = step(healthy(), Natural(NaturalSettings(), with_pgd(random_start=1.0)))[2]
    assert torch.equal(images[0], healthy().anchor)


def test_many_small_steps_are_as_strong_as_many_small_steps():
    defense = act(steps=16, step_size=EPSILON / 8)
    assert perturbation_strength(defense, FlatModel(), healthy(), LATE, draw()) == pytest.approx(1.0)


@pytest.mark.parametrize("phase", [0, 1])
def test_the_strength_is_the_share_of_the_fall_that_the_small_steps_reach(phase):
    few = ColoTride(ColoTrideSettings(), with_pgd(steps=1, step_size=0.01))
    more = ColoTride(ColoTrideSettings(), with_pgd(steps=3, step_size=0.01))
    info = replace(LATE, step=phase)
    found = [perturbation_strength(one, FlatModel(), healthy(), info, draw()) for one in (few, more)]
    assert 0 < found[0] < found[1] < 1


def test_a_model_that_withstands_only_large_steps_is_found_out():
    defense = act(steps=1, step_size=EPSILON)
    weak = perturbation_strength(defense, RippledModel(), healthy(), LATE, draw())
    # Pixels near 0 and 1 cannot go the whole way, and move.
    assert weak < 0.45
    refined = perturbation_strength(defense, RippledModel(), healthy(), replace(LATE, refinement=3), draw())
    assert refined > 0.5
    assert perturbation_strength(defense, FlatModel(), healthy(), LATE, draw()) > 0.6


def test_a_defense_that_moves_nothing_has_nothing_to_lose():
    natural = Natural(NaturalSettings(), RECIPE)
    assert perturbation_strength(natural, FlatModel(), healthy(), LATE, draw()) == 1.0


def test_measuring_the_strength_leaves_the_model_and_its_mode_alone():
    model = FlatModel().train()
    before = model.linear.weight.clone()
    perturbation_strength(act(), model, healthy(), LATE, draw())
    assert model.training
    assert model.linear.weight.requires_grad
    assert model.linear.weight.grad is None
    assert torch.equal(model.linear.weight, before)


def test_refined_steps_are_those_of_the_refined_budget():
    coarse = step(healthy(), act(steps=2, step_size=0.04), replace(LATE, refinement=1))[2]
    fine = step(healthy(), act(steps=4, step_size=0.02))[2]
    for one, other in zip(coarse, fine, strict=True):
        torch.testing.assert_close(one, other)


def test_a_single_step_goes_past_the_stop_of_colo_and_stepping_back_keeps_it():
    def hardest(**values):
        pgd = with_pgd(epsilon=0.5, steps=1, step_size=0.5, **values)
        return float(
            step(healthy(), ColoTride(ColoTrideSettings(phases="candidates"), pgd))[1]["perturbed_collapseness"]
        )

    assert hardest() > 0.2
    assert 0 <= hardest(step_back=5) < 0.05
