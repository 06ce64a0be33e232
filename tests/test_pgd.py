import math

import pytest
import torch
from torch import nn

from colotride.pgd import frozen, perturb
from colotride.pgd_settings import Budget, PGDSettings
from tests.toys import FlatModel, random_images


def slow_pgd(model, images, objective, epsilon, step_size, steps):
    """The formula image by image and pixel by pixel, with numerical clipping written out."""
    result = []
    for image in images:
        x = image.clone()
        for _ in range(steps):
            leaf = x.clone()[None].requires_grad_()
            objective(model(leaf)).backward()
            for index in range(x.numel()):
                value = x.flatten()[index] - step_size * math.copysign(1, leaf.grad.flatten()[index])
                clean = image.flatten()[index].item()
                value = min(max(value.item(), clean - epsilon), clean + epsilon)
                x.view(-1)[index] = min(max(value, 0.0), 1.0)
        result.append(x)
    return torch.stack(result)


def away_from_first_axis(embeddings):
    return embeddings[:, 0].sum()


def test_pgd_is_the_formula_for_every_pixel():
    model, images = FlatModel(), random_images(4)
    got = perturb(model, images, away_from_first_axis, Budget(0.1, 0.03, 7))
    torch.testing.assert_close(got, slow_pgd(model, images, away_from_first_axis, 0.1, 0.03, 7))


def test_perturbed_images_stay_in_the_ball_and_in_the_pixel_range():
    model, images = FlatModel(), random_images(16)
    images[0], images[1] = 0.0, 1.0
    got = perturb(model, images, away_from_first_axis, Budget(0.2, 0.15, 9))
    assert (got - images).abs().max() <= 0.2 + 1e-6
    assert got.min() >= 0
    assert got.max() <= 1
    assert not torch.equal(got, images)


def test_the_objective_falls():
    model, images = FlatModel(), random_images(8)
    after = perturb(model, images, away_from_first_axis, Budget(0.1, 0.02, 10))
    assert away_from_first_axis(model(after)) < away_from_first_axis(model(images)) - 0.1


def test_the_result_does_not_depend_on_the_other_images():
    model, images = FlatModel(), random_images(6)
    together = perturb(model, images, away_from_first_axis, Budget(0.1, 0.02, 5))
    alone = torch.cat([perturb(model, image[None], away_from_first_axis, Budget(0.1, 0.02, 5)) for image in images])
    torch.testing.assert_close(together, alone)


def test_a_saturated_objective_moves_nothing():
    images = random_images(3)
    got = perturb(FlatModel(), images, lambda e: torch.relu(e.sum() - 100), Budget(0.1, 0.02, 5))
    assert torch.equal(got, images)


@pytest.mark.parametrize("budget", [Budget(0.0, 0.02, 5), Budget(0.1, 0.02, 0)])
def test_an_empty_budget_moves_nothing(budget):
    images = random_images(3)
    assert torch.equal(perturb(FlatModel(), images, away_from_first_axis, budget), images)


def test_a_start_outside_the_ball_is_projected_first():
    images = random_images(3)
    got = perturb(FlatModel(), images, lambda e: 0 * e.sum(), Budget(0.1, 0.02, 1), start=images + 5)
    torch.testing.assert_close(got, (images + 0.1).clamp(max=1))


def test_weights_statistics_and_modes_are_untouched():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3))
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    perturb(model, random_images(4), lambda e: e.sum(), Budget(0.1, 0.02, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model[0].bias.requires_grad
    assert model[0].weight.requires_grad


def test_frozen_restores_after_an_error():
    model = FlatModel().train()
    with pytest.raises(RuntimeError, match="shape"), frozen(model):
        model(torch.zeros(1, 7))
    assert model.training
    assert model.linear.weight.requires_grad


def test_on_a_cpu_no_step_is_spent_once_all_images_are_saturated():
    passes = []
    model, images = FlatModel(), random_images(3)
    model.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    moved = perturb(model, images, lambda e: torch.relu(e[:, 0] + 0.2).sum(), Budget(0.5, 0.05, 40))
    assert 1 < len(passes) < 40
    alone = [
        perturb(model, image[None], lambda e: torch.relu(e[:, 0] + 0.2).sum(), Budget(0.5, 0.05, 40))
        for image in images
    ]
    torch.testing.assert_close(moved, torch.cat(alone))
    assert (model(moved)[:, 0] <= -0.2).all()


def test_no_weight_gradient_and_one_pass_per_step():
    passes = []
    model = FlatModel()
    model.register_forward_hook(lambda module, inputs, output: passes.append(module.linear.weight.requires_grad))
    perturb(model, random_images(2), away_from_first_axis, Budget(0.1, 0.02, 5))
    assert passes == [False] * 5


def test_the_linear_ramp_perturbs_from_the_first_epoch_and_ends_at_full_strength():
    pgd = PGDSettings(step_size=0.1, ramp="linear")
    assert [pgd.budget(e, 4).step_size for e in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_a_shorter_ramp_reaches_full_strength_earlier_and_stays_there():
    pgd = PGDSettings(step_size=0.1, ramp="linear", ramp_length=0.5)
    assert [pgd.budget(e, 4).step_size for e in range(4)] == pytest.approx([0.05, 0.1, 0.1, 0.1])


def test_constant_and_cosine_ramps():
    assert PGDSettings(step_size=0.1, ramp="constant").budget(0, 4).step_size == pytest.approx(0.1)
    cosine = PGDSettings(step_size=0.1, ramp="cosine")
    assert [cosine.budget(e, 2).step_size for e in range(2)] == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize(
    ("field", "value"), [("epsilon", -0.1), ("epsilon", 2), ("steps", 0), ("step_size", 0), ("ramp", "square")]
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        PGDSettings(**{field: value})


def test_sizes_may_be_written_as_fractions():
    assert PGDSettings(epsilon="8/255").epsilon == 8 / 255
    with pytest.raises(ValueError, match="8/0"):
        PGDSettings(epsilon="8/0")


def test_a_ramp_from_zero_leaves_the_first_epoch_unperturbed():
    pgd = PGDSettings(step_size=0.1, ramp="linear", ramp_from_zero=True)
    assert [pgd.budget(e, 4).step_size for e in range(4)] == pytest.approx([0, 0.025, 0.05, 0.075])


def test_steps_grow_instead_of_their_size_and_end_at_the_whole_number():
    pgd = PGDSettings(step_size=0.1, steps=6, growth="steps")
    budgets = [pgd.budget(epoch, 4) for epoch in range(4)]
    assert [one.steps for one in budgets] == [2, 3, 5, 6]
    assert {one.step_size for one in budgets} == {0.1}
    assert sum(PGDSettings(steps=16, growth="steps").budget(e, 16).steps for e in range(16)) == 16 * 17 / 2
    assert PGDSettings(growth="steps", ramp_from_zero=True).budget(0, 4).steps == 0
    # 25 times 7 / 25 is more than 7 in floating point.
    assert [PGDSettings(steps=25, growth="steps").budget(e, 25).steps for e in range(25)] == list(range(1, 26))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_projection_steps_and_noise_add_up_within_the_pixel_range(norm):
    model, images = FlatModel(), random_images(6)
    start = images + 0.1
    got = perturb(model, images, away_from_first_axis, Budget(0.1, 0.1, 1, norm, project=False), start=start)
    kept = perturb(model, images, away_from_first_axis, Budget(0.1, 0.1, 1, norm), start=start)
    assert got.min() >= 0
    assert got.max() <= 1
    size = (got - images).abs().max() if norm == "linf" else (got - images).flatten(1).norm(dim=1).max()
    assert size > 0.15
    size = (kept - images).abs().max() if norm == "linf" else (kept - images).flatten(1).norm(dim=1).max()
    assert size <= 0.1 + 1e-6


def test_a_refined_budget_walks_as_far_in_more_steps():
    assert Budget(0.1, 0.08, 1).refined(2) == Budget(0.1, 0.02, 4)
    assert Budget(0.1, 0.08, 3).refined(0) == Budget(0.1, 0.08, 3)


def test_noise_beyond_the_ball_that_would_be_cut_off_is_refused():
    with pytest.raises(ValueError, match=r"random_start 1.5 is outside the ball.*project: false"):
        PGDSettings(random_start=1.5)
    assert PGDSettings(random_start=1.5, project=False).random_start == 1.5


def towards(threshold):
    """0 once the first axis is low enough, on average over all images; a stop like that of Eq. 10."""
    return lambda embeddings: torch.relu(embeddings[:, 0].mean() - threshold)


@pytest.mark.parametrize("steps", [1, 3])
def test_stepping_back_ends_where_the_stop_just_holds(steps):
    model, images = FlatModel(), random_images(6)
    start = float(model(images).detach()[:, 0].mean())
    stop, size = towards(start - 0.15), 0.3
    far = perturb(model, images, stop, Budget(size, size, steps))
    near = perturb(model, images, stop, Budget(size, size, steps, step_back=4))
    # Steps of the whole radius: the stop is reached by the first one.
    sixteenths = [images + (far - images) * part / 16 for part in range(17)]
    first = next(part for part, moved in enumerate(sixteenths) if stop(model(moved)) <= 0)
    assert 0 < first < 16
    torch.testing.assert_close(near, sixteenths[first])


def test_a_stop_that_was_not_reached_changes_nothing_and_costs_one_pass():
    passes = []
    model, images = FlatModel(), random_images(6)
    model.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    never = towards(-5.0)
    plain = perturb(model, images, never, Budget(0.1, 0.05, 2))
    passes.clear()
    assert torch.equal(perturb(model, images, never, Budget(0.1, 0.05, 2, step_back=3)), plain)
    assert len(passes) == 3
    passes.clear()
    reached = towards(float(model(images).detach()[:, 0].mean()) - 0.01)
    passes.clear()
    perturb(model, images, reached, Budget(0.3, 0.3, 1, step_back=3))
    assert len(passes) == 1 + 1 + 3


def test_nothing_to_step_back_from_is_left_alone():
    images = random_images(3)
    saturated = towards(5.0)
    assert torch.equal(perturb(FlatModel(), images, saturated, Budget(0.1, 0.1, 2, step_back=3)), images)


def test_the_settings_reach_every_budget():
    pgd = PGDSettings(steps=4, step_back=3, random_start=2.0, project=False)
    for budget in (pgd.full, pgd.budget(0, 4), pgd.model_copy(update={"growth": "steps"}).budget(0, 4)):
        assert (budget.step_back, budget.project) == (3, False)
