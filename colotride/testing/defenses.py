"""The contract of every defense, as tests that your own defense can inherit.

from colotride.testing.defenses import DefenseContract

class TestMine(DefenseContract):
def make(self):
return Mine(epsilon=0.05, steps=2)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from colotride.defenses import Batch, StepInfo, TripletDefense

PAIRS = 8


class LinearEmbedding(nn.Module):
    """Pixels to unit vectors through one linear layer with fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 8, bias=False)
        weights = torch.randn(8, 48, generator=torch.Generator().manual_seed(0))
        self.linear.weight = nn.Parameter(weights)

    def forward(self, images: Tensor) -> Tensor:
        """Embed."""
        return functional.normalize(self.linear(images.flatten(1) - 0.5), dim=1)


class DefenseContract:
    """Subclasses implement `make`."""

    def make(self) -> TripletDefense:
        """A new defense, with a budget of a few steps."""
        raise NotImplementedError

    def batch(self) -> Batch:
        """Eight pairs of four classes."""
        images = torch.rand(2 * PAIRS, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        return Batch(images[:PAIRS], images[PAIRS:], torch.arange(PAIRS) % 4)

    def loss(self, defense: TripletDefense, model: nn.Module, step: int = 0) -> Tensor:
        """The loss of the batch in one step of an epoch in the middle."""
        draw = torch.Generator().manual_seed(step)
        return defense.batch_loss(model, self.batch(), StepInfo(5, 10, step), draw)[0]

    def test_the_loss_is_a_finite_scalar_whose_gradient_reaches_the_weights(self) -> None:
        """In both steps of a pair, for defenses that alternate."""
        for step in (0, 1):
            model = LinearEmbedding()
            loss = self.loss(self.make(), model, step)
            assert loss.ndim == 0
            assert torch.isfinite(loss)
            loss.backward()
            assert model.linear.weight.grad is not None
            assert torch.isfinite(model.linear.weight.grad).all()

    def test_the_same_batch_gives_the_same_loss(self) -> None:
        """All randomness comes from the generator."""
        assert torch.equal(self.loss(self.make(), LinearEmbedding()), self.loss(self.make(), LinearEmbedding()))

    def test_the_model_is_left_as_it_was(self) -> None:
        """Mode, weights, and which of them are trained."""
        model = LinearEmbedding().train()
        before = model.linear.weight.detach().clone()
        self.loss(self.make(), model)
        assert model.training
        assert model.linear.weight.requires_grad
        assert torch.equal(model.linear.weight, before)

    def test_diagnostics_are_scalars(self) -> None:
        """Named, finite, and of the clean batch at least."""
        _, seen = self.make().batch_loss(
            LinearEmbedding(), self.batch(), StepInfo(5, 10, 0), torch.Generator().manual_seed(0)
        )
        assert {"collapseness", "hardness"} <= set(seen)
        assert all(value.ndim == 0 and bool(torch.isfinite(value)) for value in seen.values())

    def test_a_restored_defense_goes_on_as_the_first_one(self) -> None:
        """Its state is all that a batch leaves behind."""
        model, first = LinearEmbedding(), self.make()
        self.loss(first, model)
        second = self.make()
        second.load_state_dict(first.state_dict())
        assert torch.equal(self.loss(first, model, 1), self.loss(second, model, 1))
