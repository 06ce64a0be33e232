"""Adversarial weight perturbation against weights that are moved by hand."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

import colotride as ct
from colotride.defenses import Batch, StepInfo, build_defense
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.hardness_manipulation import HardnessManipulation, HardnessManipulationSettings
from colotride.defenses.natural import Natural, NaturalSettings
from colotride.models import ModelSettings, build_model
from colotride.presets import with_defense
from colotride.training.trainer import Trainer, defense_context
from tests.defenses.scenes import MARGIN, RECIPE, Watched, collapsing, draw, healthy, step
from tests.toys import random_images
from tests.training.test_trainer import images, small

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
    assert all(torch.equal(seen[name], value) for name, value in expected.items())
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


def normalised_network():
    """A network with BatchNorm whose statistics are not frozen, as a model of ours."""
    settings = ModelSettings(
        architecture="resnet18", embedding_dim=8, weights="none", freeze_batchnorm=False, precision="bfloat16"
    )
    return build_model(settings, channels=3, image_size=32, seed=0).train()


def trained(name, changes, step_number, **values):
    """Gradients, statistics, diagnostics and passes of one batch."""
    model = normalised_network()
    config = with_defense(small(), name).with_values({"pgd.steps": 1, "pgd.ramp": "constant"} | changes | values)
    defense = build_defense(config.defense, defense_context(config))
    batch = Batch(random_images(4, (3, 32, 32)), random_images(4, (3, 32, 32), seed=1), torch.arange(4) % 2)
    loss, diagnostics = defense.batch_loss(model, batch, StepInfo(2, 4, step_number), draw())
    loss.backward()
    return [p.grad for p in model.parameters()], list(model.buffers()), loss.detach(), diagnostics, model.passes


@pytest.mark.parametrize(
    ("name", "changes", "step_number", "extra"),
    [
        ("colo-tride", {}, 0, 12),
        ("colo-tride", {}, 1, 12),
        # Candidates that moved, and the same ones unmoved: the anchor is the same in both.
        ("colo-tride", {"training.clean_weight": 0.3}, 0, 20),
        ("colo-tride", {"training.clean_weight": 0.3}, 1, 16),
    ],
)
def test_running_statistics_and_what_is_reported_are_those_of_the_weights_as_they_are(
    name, changes, step_number, extra
):
    _, statistics, loss, diagnostics, passes = trained(
        name, changes, step_number, **{"training.weight_perturbation": 1e-4}
    )
    gradients, expected, plain, told, fewer = trained(name, changes, step_number)
    assert all(torch.equal(one, other) for one, other in zip(statistics, expected, strict=True))
    assert torch.equal(diagnostics.pop("loss"), plain)
    assert torch.equal(diagnostics.pop("moved_weights_loss"), loss)
    assert loss > plain
    assert all(torch.equal(diagnostics[key], told[key]) for key in told)
    assert passes == fewer + extra
    assert all(torch.isfinite(one).all() for one in gradients)


def test_collapse_is_judged_by_the_loss_at_the_weights_as_they_are(tmp_path):
    """The loss that is trained is higher, and is recorded beside it."""
    config = small(**{"training.weight_perturbation": 0.001, "training.epochs": 1})
    outcome = Trainer(config, images(), None, device=torch.device("cpu"), directory=tmp_path).run()
    (epoch,) = outcome.history
    assert epoch.diagnostics["moved_weights_loss"] > epoch.diagnostics["loss"] + 0.01
