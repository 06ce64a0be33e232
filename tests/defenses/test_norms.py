"""Every defense keeps to the ball of its norm."""

import pytest
import torch

from colotride.defenses import DEFENSES, Batch, StepInfo
from colotride.testing.defenses import LinearEmbedding

OPTIONS = {"assist": {"when": "always"}}
"""So that it perturbs every batch."""

RADIUS = {"linf": 0.05, "l2": 0.2}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [name for name in DEFENSES if name != "natural"])
def test_every_perturbed_image_lies_in_the_ball_and_some_at_its_surface(name, norm):
    images = 0.3 + 0.4 * torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    seen = []
    model = LinearEmbedding()
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    epsilon = RADIUS[norm]
    defense = DEFENSES[name](
        epsilon=epsilon, step_size=epsilon, steps=3, ramp="constant", norm=norm, **OPTIONS.get(name, {})
    )
    for step in (0, 1):
        batch = Batch(images[:8], images[8:], torch.arange(8) % 4)
        defense.batch_loss(model, batch, StepInfo(5, 10, step), torch.Generator().manual_seed(step))
    order = {"linf": torch.inf, "l2": 2}[norm]
    nearest = torch.cdist(torch.cat(seen).flatten(1), images.flatten(1), p=order).amin(dim=1)
    assert float(nearest.max()) == pytest.approx(epsilon, rel=1e-3)
