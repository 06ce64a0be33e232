"""The fast form of a network gives what the plain one gives, and follows its weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from colotride.folding import fold_batchnorm
from colotride.models import ModelSettings, build_model
from colotride.pgd import frozen, perturb
from colotride.pgd_settings import Budget
from tests.toys import random_images

ROOT = Path(__file__).parents[1]


def model_with_statistics(architecture="resnet18", **values):
    """A torchvision net whose BatchNorm statistics are as after some training, so that folding has work to do."""
    settings = ModelSettings(architecture=architecture, embedding_dim=16, weights="none", **values)
    model = build_model(settings, channels=3, image_size=32, seed=0)
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=random)
            nn.init.normal_(module.bias, 0, 0.2, generator=random)
    return model.train()


def plain_perturb(model, images, objective, budget):
    """PGD as it is written in books: the model itself, image by image clamp by clamp."""
    model.eval()
    moved = images.clone()
    for _ in range(budget.steps):
        moved = moved.detach().requires_grad_(True)
        embeddings = functional.normalize(model.backbone((moved - model.mean) / model.std), dim=1)
        objective(embeddings).backward()
        moved = moved.detach() - budget.step_size * moved.grad.sign()
        moved = torch.max(torch.min(moved, images + budget.epsilon), images - budget.epsilon).clamp(0, 1)
    return moved


@pytest.mark.parametrize(
    ("architecture", "folded"), [("resnet18", 20), ("mobilenet_v3_small", 34), ("densenet121", 59), ("googlenet", 57)]
)
def test_folded_networks_give_the_same_embeddings(architecture, folded):
    model = model_with_statistics(architecture)
    network = fold_batchnorm(model.backbone)
    assert len(network._convolutions) == folded
    images = random_images(2, (3, 64, 64))
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images), model.backbone(images), rtol=1e-3, atol=1e-4)


TIMM = {
    "tf_efficientnet_lite0": ("folded", 65),
    "test_efficientnet": ("folded", 65),
    "test_resnet": ("folded", 48),
    "regnetx_002": ("folded", 64),
    "mobilenetv3_small_050": ("folded", 64),
    "test_convnext": ("plain: it has no BatchNorm", 64),
    "test_vit": ("plain: it has no BatchNorm", 64),
}
"""Which path each network takes, and the side of the images: odd where padding depends on it."""


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_give_the_same_embeddings_and_the_same_gradients(name):
    pytest.importorskip("timm")
    path, size = TIMM[name]
    settings = ModelSettings(architecture=f"timm:{name}", embedding_dim=8, weights="none")
    model = build_model(settings, channels=3, image_size=size, seed=0).double().eval()
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
    assert model.inference_path().startswith(path)
    images = random_images(2, (3, size, size)).double()
    found = []
    for embed in (model, model.inference_forward()):
        leaf = images.clone().requires_grad_(True)
        embeddings = embed(leaf)
        found.append((embeddings.detach(), torch.autograd.grad(embeddings[:, 0].sum(), leaf)[0]))
    (plain, plain_gradient), (fast, fast_gradient) = found
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-10)
    assert plain_gradient.abs().max() > 0
    torch.testing.assert_close(fast_gradient, plain_gradient, rtol=1e-6, atol=1e-8 * float(plain_gradient.abs().max()))


def test_tracing_puts_the_modes_back():
    model = model_with_statistics()
    before = [module.training for module in model.backbone.modules()]
    fold_batchnorm(model.backbone)
    assert [module.training for module in model.backbone.modules()] == before


def test_a_norm_whose_convolution_has_another_reader_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            maps = self.convolution(images)
            return self.norm(maps) + maps

    assert fold_batchnorm(Shared()) is None


def test_networks_without_batchnorm_or_with_code_that_cannot_be_traced_run_as_they_are():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            return self.norm(self.convolution(images)) if images.sum() > 0 else images

    assert fold_batchnorm(nn.Sequential(nn.Conv2d(3, 3, 1))) is None
    assert fold_batchnorm(Branching()) is None


def test_the_fast_form_follows_the_weights_and_adds_none():
    model, images = model_with_statistics(), random_images(2, (3, 32, 32))
    names, count = set(model.state_dict()), len(list(model.parameters()))
    model.inference_forward()
    with torch.no_grad():
        model.backbone.conv1.weight.mul_(2)
        model.backbone.bn1.running_mean.add_(1)
    with frozen(model) as embed, torch.no_grad():
        torch.testing.assert_close(embed(images), model(images), rtol=1e-3, atol=1e-5)
    assert set(model.state_dict()) == names
    assert len(list(model.parameters())) == count


def test_the_engine_gives_the_images_of_plain_pgd():
    model, images = model_with_statistics(), random_images(4, (3, 32, 32))
    axis = torch.randn(16, generator=torch.Generator().manual_seed(3))
    budget = Budget(0.05, 0.01, 5)
    got = perturb(model, images, lambda e: (e @ axis).sum(), budget)
    expected = plain_perturb(model, images, lambda e: (e @ axis).sum(), budget)
    # A pixel whose gradient is 0 within rounding may step either way.
    assert ((got - expected).abs() > 1e-6).float().mean() < 0.002
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(got), model(expected), rtol=1e-2, atol=1e-3)


def test_low_precision_gives_float32_unit_vectors_near_the_exact_ones():
    exact, low = model_with_statistics(), model_with_statistics(precision="bfloat16")
    images = random_images(4, (3, 32, 32))
    with frozen(exact) as one, frozen(low) as other, torch.no_grad():
        a, b = one(images), other(images)
    assert b.dtype == torch.float32
    torch.testing.assert_close(b.norm(dim=1), torch.ones(4))
    assert 0 < (a - b).norm(dim=1).max() < 0.1
    assert next(low.parameters()).dtype == torch.float32


COMPILED_AND_PLAIN = """
import torch
from colotride.pgd import perturb
from colotride.pgd_settings import Budget
from tests.test_folding import model_with_statistics
from tests.toys import random_images

images, budget = random_images(2, (3, 32, 32)), Budget(0.05, 0.01, 2)
one, other = (
    perturb(model_with_statistics(compile=compile), images, lambda e: e[:, 0].sum(), budget) for compile in (False, True)
)
print(float(((one - other).abs() > 1e-6).float().mean()))
"""


@pytest.mark.slow
def test_a_compiled_engine_gives_the_same_images():
    """In a process of its own: torch.compile cannot look into functions whose types are checked at run time."""
    ran = subprocess.run([sys.executable, "-c", COMPILED_AND_PLAIN], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 0.01
