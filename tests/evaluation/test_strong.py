"""The strong protocol against exact worst cases, and against a model that hides its gradient."""

import pytest
import torch
from torch import nn

from colotride.evaluation.attacks import AttackBatch, attack_named
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.gallery import Gallery, embed_gallery
from colotride.evaluation.scores import ATTACK_NAMES
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.strong import PASSES, ensemble, random_start, run_ensemble, trace_steps, worse
from colotride.pgd_settings import Budget
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel, random_images

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
COUNT = 40


class Angle(nn.Module):
    """A linear function of the pixels is the angle of a unit vector of the plane.

    Within a ball of radius r every angle of an interval around the clean one can be reached and no other: its half width is
    r times the dual norm of the weights. What an attack can reach at most is found by trying all of them.
    """

    def __init__(self):
        super().__init__()
        weights = torch.randn(12, generator=torch.Generator().manual_seed(4))
        self.weights = nn.Parameter(weights / weights.abs().sum())

    def angle(self, images):
        return 6 * (images.flatten(1) - 0.5) @ self.weights

    def forward(self, images):
        angle = self.angle(images)
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def reach(self, budget):
        return (
            6
            * budget.epsilon
            * float(torch.linalg.vector_norm(self.weights.detach(), {"linf": 1, "l2": 2}[budget.norm]))
        )


BUDGETS = [Budget(0.1, 0.02, 24), Budget(0.2, 0.04, 24, "l2")]


def scene(name):
    """Images whose pixels are far enough from 0 and 1 that no attack is clipped there."""
    model, images = Angle(), 0.25 + 0.5 * random_images(COUNT)
    embeddings = model(images).detach()
    # Two classes that alternate along the circle, in runs of uneven lengths.
    order = model.angle(images).detach().argsort().argsort()
    gallery = Gallery(embeddings, (order // 3 + order // 7) % 2)
    attack, everything = attack_named(name, "strong"), torch.arange(COUNT)
    target = attack.draw(gallery, everything, torch.Generator().manual_seed(0))
    return model, images, attack, AttackBatch(gallery, everything, target)


def exact(model, images, attack, attacked, budget):
    """The worst value of every number over all angles that can be reached, ends included."""
    clean = model.angle(images).detach()
    found = attack.measure(attacked, attacked.clean)
    for share in torch.linspace(-1, 1, 801):
        angle = clean + share * model.reach(budget)
        measured = attack.measure(attacked, torch.stack([angle.cos(), angle.sin()], dim=1))
        found = {name: worse(attack.numbers[name], found[name], measured[name]) for name in found}
    return found


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.norm)
@pytest.mark.parametrize("name", ATTACK_NAMES)
def test_the_worst_case_of_a_linear_embedding_is_reached_and_never_exceeded(name, budget):
    model, images, attack, attacked = scene(name)
    bound = exact(model, images, attack, attacked, budget)
    found = run_ensemble(attack, model, images, attacked, budget, seed=0).worst
    before = attack.measure(attacked, attacked.clean)
    for number, direction in attack.numbers.items():
        sign = 1 if direction == "raised" else -1
        beyond = sign * (found[number] - bound[number])
        assert float(beyond.max()) <= 1e-3, number
        possible = sign * (bound[number] - before[number]).double().mean()
        reached = sign * (found[number] - before[number]).double().mean()
        assert possible > 0, "the attack has something to reach"
        # On a circle the first result changes back and forth: ES:R misses some queries whose worst point lies between.
        share = 0.65 if number == "ES:R" else 0.98
        assert float(reached / possible) > share, (number, float(reached), float(possible))


class HiddenGradient(FlatModel):
    """Has no gradient where all pixels are whole levels of 0 to 255, as those of images in files are."""

    def forward(self, images):
        levels = 255 * images.detach()
        natural = ((levels - levels.round()).abs() < 1e-3).flatten(1).all(dim=1)[:, None, None, None]
        return super().forward(torch.where(natural, images.detach(), images))


SETTINGS = {"steps": 8, "epsilon": 0.1, "step_size": 0.03, "bootstrap": 0}


def run(model, protocol, **values):
    settings = EvaluationSettings(**SETTINGS | {"protocol": protocol} | values)
    return evaluate(model, toy_images(), settings, image_size=2, seed=0, device=CPU)


def test_strict_overrates_a_model_that_hides_its_gradient_and_strong_exposes_it():
    honest, hidden = FlatModel(), HiddenGradient()
    assert pytest.approx(100) == run(hidden, "strict").ARS, "strict believes that it resists everything"
    exposed, truth = run(hidden, "strong"), run(honest, "strong")
    assert exposed.ARS < 100 - 0.8 * (100 - truth.ARS)
    assert exposed.convergence.gap["ARS"] > 40


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_strong_contains_strict_and_is_never_weaker_on_any_query(norm):
    values = {"norm": norm, "epsilon": 0.1 if norm == "linf" else 0.3}
    strict, strong = (run(FlatModel(), protocol, **values) for protocol in ("strict", "strong"))
    for name in ATTACK_NAMES:
        for number, direction in attack_named(name, "strong").numbers.items():
            sign = 1 if direction == "raised" else -1
            gained = sign * (strong.per_query[number]["after"] - strict.per_query[number]["after"])
            assert float(gained.min()) >= -1e-4, number
    assert strong.ARS < strict.ARS
    assert strong.ERS < strict.ERS
    for name, score in strong.convergence.strict.items():
        assert score == pytest.approx(strict.scores()[name], abs=1e-3), name
    assert strong.convergence.gap["ARS"] == pytest.approx(strict.ARS - strong.ARS, abs=1e-3)


def test_scores_fall_with_the_passes_and_end_at_those_of_the_evaluation():
    result = run(FlatModel(), "strong")
    curve = result.convergence
    assert curve.passes == sorted(curve.passes)
    assert (curve.passes[-1], curve.strict_passes) == (PASSES * 8, 8)
    for name in ("ARS", "ERS"):
        assert curve.scores[name] == sorted(curve.scores[name], reverse=True)
    for name, values in curve.scores.items():
        assert values[-1] == pytest.approx(result.scores()[name]), name


@pytest.mark.parametrize("batch_size", [7])
def test_batches_change_nothing(batch_size):
    """Although images of a batch need different numbers of steps."""
    assert run(FlatModel(), "strong", batch_size=batch_size).scores() == pytest.approx(
        run(FlatModel(), "strong").scores(), abs=1e-2
    )


@pytest.mark.parametrize("name", ["CA+", "GTT"])
@pytest.mark.parametrize("steps", [1, 2, 5, 32])
def test_it_spends_twice_the_passes_of_strict(name, steps):
    passes = []
    model, images = FlatModel(), toy_images()
    gallery = embed_gallery(model, images, image_size=2, batch_size=30, device=CPU)
    attack, everything = attack_named(name, "strong"), torch.arange(30)
    target = attack.draw(gallery, everything, torch.Generator().manual_seed(0))
    model.register_forward_hook(lambda module, inputs, output: passes.append(output.requires_grad))
    pixels = images.pixels(everything) / 255
    found = run_ensemble(attack, model, pixels, AttackBatch(gallery, everything, target), Budget(0.1, 0.02, steps), 0)
    assert sum(passes) <= max(PASSES * steps, len(ensemble(2, steps)))
    assert passes.count(False) == len(ensemble(2, steps)), "one more forward pass at the end of each run"
    assert all(trace.shape[1] == len(trace_steps(steps)) for trace in found.trace.values())


def test_random_starts_depend_on_the_image_alone_and_fill_the_ball():
    images, places = random_images(50), torch.arange(100, 150)
    for norm in ("linf", "l2"):
        budget = Budget(0.3, 0.1, 4, norm)
        whole = random_start(images, places, budget, seed=1) - images
        torch.testing.assert_close(random_start(images[7:9], places[7:9], budget, seed=1) - images[7:9], whole[7:9])
        assert not torch.equal(random_start(images, places, budget, seed=2) - images, whole)
        if norm == "l2":
            torch.testing.assert_close(whole.flatten(1).norm(dim=1), torch.full((50,), 0.3))
        else:
            assert 0.28 < float(whole.abs().max()) <= 0.3 + 1e-6
        assert float(whole.mean().abs()) < 0.03
