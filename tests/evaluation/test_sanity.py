"""An honest model passes every check; each way of hiding gradients fails the check that is there for it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from colotride.data.base import InMemoryImages
from colotride.evaluation.gallery import embed_gallery
from colotride.evaluation.sanity import sanity_checks, sanity_context
from colotride.pgd_settings import Budget
from tests.toys import FlatModel

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BUDGET = Budget(0.1, 0.02, 16)


class Net(nn.Module):
    """Two layers, so that gradients bend."""

    def __init__(self, seed=0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(48, 32, generator=random) / 3)
        self.second = nn.Parameter(torch.randn(32, 6, generator=random))

    def forward(self, images):
        return functional.normalize(torch.tanh((images.flatten(1) - 0.5) @ self.first) @ self.second, dim=1)


class Rounding(Net):
    """Sees only the two highest bits of its input: its gradient is 0."""

    def forward(self, images):
        return super().forward((images * 4).round() / 4)


class Misleading(Net):
    """Returns right embeddings with wrong gradients."""

    def forward(self, images):
        embeddings = super().forward(images)
        wrong = functional.normalize((images.flatten(1) * torch.arange(48) % 1)[:, :6] - 0.4, dim=1)
        return embeddings.detach() + wrong - wrong.detach()


class Random(Net):
    """Adds noise to its embedding."""

    def forward(self, images):
        noise = torch.rand(len(images), 6) - 0.5
        return functional.normalize(super().forward(images) + noise, dim=1)


class Neighbourly(Net):
    """Normalises over the batch, as BatchNorm in training mode does."""

    def forward(self, images):
        return super().forward(images - images.mean(dim=0) + 0.5)


class Quiet(Net):
    """Right embeddings, whose gradient is smaller than float32 can hold."""

    def forward(self, images):
        embeddings = super().forward(images)
        return embeddings.detach() + 1e-44 * (embeddings - embeddings.detach())


class Offset(Net):
    """Adds a constant before it normalises, so that all images lie in nearly one place, where float32 ends."""

    def forward(self, images):
        hidden = torch.tanh((images.flatten(1) - 0.5) @ self.first) @ self.second
        return functional.normalize(hidden + 2e6, dim=1)


class Floored(Net):
    """Normalises with a floor that no length reaches, beside a constant: what is left is too small to be seen."""

    def forward(self, images):
        hidden = torch.tanh((images.flatten(1) - 0.5) @ self.first) @ self.second
        beside = 1 + functional.normalize(hidden, dim=1, eps=1e4)
        return beside / beside.norm(dim=1, keepdim=True)


def images():
    random = torch.Generator().manual_seed(0)
    base = torch.randint(40, 216, (4, 3, 4, 4), generator=random)
    noise = torch.randint(-20, 21, (40, 3, 4, 4), generator=random)
    return InMemoryImages("toy", (base.repeat(10, 1, 1, 1) + noise).to(torch.uint8), torch.arange(40) % 4)


def verdicts(model, surrogate=None, budget=BUDGET):
    one = images()
    gallery = embed_gallery(model, one, image_size=4, batch_size=40, device=CPU)
    context = sanity_context(model, one, gallery, torch.arange(0, 40, 2), 4, budget)
    return {check.name: check for check in sanity_checks(context, surrogate or Net(seed=9), seed=0)}


def test_an_honest_model_passes_every_check():
    found = verdicts(Net())
    assert {name: check.figures for name, check in found.items() if not check.passed} == {}
    assert found["epsilon 0 changes nothing"].figures == {"largest change of a pixel": 0.0}
    steps = list(found["more steps do not weaken"].figures.values())
    assert steps[0] < steps[-1], "the figures are those of the attack"


@pytest.mark.parametrize(
    ("model", "failed"),
    [
        (Rounding(), "gradients are not zero"),
        (Rounding(), "a large epsilon breaks the model"),
        (Misleading(), "gradient-free does not beat white box"),
        (Random(), "outputs are not random"),
        (Neighbourly(), "an image does not depend on its batch"),
        (Quiet(), "gradients do not underflow"),
        (Offset(), "double precision agrees"),
        (Floored(), "the embedding's scale does not matter"),
    ],
)
def test_hidden_gradients_are_found(model, failed):
    check = verdicts(model)[failed]
    assert not check.passed, check.figures


def test_the_checks_are_made_in_the_norm_of_the_evaluation():
    length = Budget(0.3, 0.06, 16, "l2")
    found = verdicts(Net(), budget=length)
    assert {name: check.figures for name, check in found.items() if not check.passed} == {}
    assert "R@1 at epsilon 3.4641" in found["a large epsilon breaks the model"].figures
    assert not verdicts(Misleading(), budget=length)["gradient-free does not beat white box"].passed


@pytest.mark.parametrize(("norm", "length"), [("linf", 0.02), ("l2", 0.06)])
def test_an_attack_starts_within_one_step_and_stays_in_its_ball(norm, length):
    one, budget = images(), Budget(0.3, length, 4, norm)
    context = sanity_context(
        Net(), one, embed_gallery(Net(), one, image_size=4, batch_size=40, device=CPU), torch.arange(40), 4, budget
    )
    change = (context.random_start(budget, torch.Generator().manual_seed(0)) - context.images).flatten(1)
    size = torch.linalg.vector_norm(change, ord=2 if norm == "l2" else torch.inf, dim=1)
    assert torch.all(size <= length * (1 + 1e-5))
    assert torch.all(size > length / 2)


def test_a_surrogate_that_knows_the_model_beats_wrong_gradients():
    check = verdicts(Misleading(), surrogate=Net())["transfer does not beat white box"]
    assert not check.passed, check.figures
    assert check.figures["transfer"] > check.figures["white box"]


def test_an_attack_that_takes_too_large_steps_is_found_by_its_restarts():
    """A model whose embedding turns quickly: where one start ends is chance."""

    class Turning(FlatModel):
        def forward(self, images):
            phase = 300 * images.flatten(1).mean(dim=1)
            return torch.stack([phase.cos(), phase.sin()], dim=1)

    assert not verdicts(Turning())["random restarts gain little"].passed
