"""Adversarial weight perturbation against weights that are moved by hand."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

import colotride as ct
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.hardness_manipulation import HardnessManipulation, HardnessManipulationSettings
from colotride.defenses.natural import Natural, NaturalSettings
from tests.defenses.scenes import MARGIN, RECIPE, Watched, collapsing, healthy, step
from tests.toys import random_images

SIZE = 0.05
MOVED = replace(RECIPE, weight_perturbation=SIZE)


def loss_by_hand(model, images):
    anchor, positive, negative = (model(part) for part in images)
    hardness = (anchor - positive).norm(dim=1) - (anchor - negative).norm(dim=1)
    return (hardness + MARGIN).clamp_min(0).mean()


@pytest.mark.parametrize(
    "make",
    [
        lambda context: Natural(NaturalSettings(), context),
        lambda context: ColoTride(ColoTrideSettings(phases="candidates"), context),
        lambda context: ColoTride(ColoTrideSettings(phases="anchor", top_ranked_coefficient=0.0), context),
    ],
)
def test_the_loss_and_its_gradient_are_those_at_weights_moved_by_hand(make):
    loss, _, images, model = step(collapsing(), make(MOVED))
    loss.backward()
    plain, *_ = step(collapsing(), make(RECIPE))
    by_hand = deepcopy(Watched())
    loss_by_hand(by_hand, images).backward()
    with torch.no_grad():
        for weight in by_hand.parameters():
            if weight.ndim > 1:
                weight += SIZE * weight.norm() * weight.grad / weight.grad.norm()
    by_hand.zero_grad()
    expected = loss_by_hand(by_hand, images)
    expected.backward()
    assert loss > plain + 0.001
    torch.testing.assert_close(loss, expected)
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_weights_stay_and_the_diagnostics_are_those_of_the_weights_as_they_are():
    defense = ColoTride(ColoTrideSettings(), MOVED)
    _, seen, images, model = step(healthy(), defense)
    _, expected, plain_images, _ = step(healthy(), ColoTride(ColoTrideSettings(), RECIPE))
    assert {name: value.item() for name, value in seen.items()} == {name: v.item() for name, v in expected.items()}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), Watched().parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(images, plain_images, strict=True))


def test_a_defense_that_carries_a_state_follows_the_loss_at_the_weights_as_they_are():
    moved, plain = (HardnessManipulation(HardnessManipulationSettings(), context) for context in (MOVED, RECIPE))
    step(healthy(), moved)
    step(healthy(), plain)
    assert moved.state_dict() == plain.state_dict()
    assert moved.state_dict()


def test_biases_and_weights_that_are_not_trained_stay_where_they_are():
    """A network whose only trained tensor is a bias has nothing to move."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, 4))
    network[1].weight.requires_grad_(False)
    images, labels = random_images(8), torch.arange(8) % 2
    losses = [
        ct.ColoTride(epsilon=0.1, steps=2, weight_perturbation=size)(network, images, labels, step=0, epoch=0, epochs=2)
        for size in (0.0, 0.5)
    ]
    assert torch.equal(*losses)
