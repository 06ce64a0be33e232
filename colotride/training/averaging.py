"""An exponential moving average of the weights, which is what is validated, saved and used.

Averaged weights are known to be more robust than the last ones (Gowal et al., arXiv:2010.03593, for classifiers) and move
less from epoch to epoch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows the weights of a model while it is trained."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            model: to follow; its parameters and its floating-point buffers are averaged.
            decay: share of the average that remains after a batch, in (0, 1).
        """
        self._live = [value for value in [*model.parameters(), *model.buffers()] if value.is_floating_point()]
        self._decay = decay
        self._average = [value.detach().clone() for value in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after a batch.

        The first weights are worth little, so that the decay begins small: (1 + step) / (10 + step), as long as that is
        below the one that was asked for.

        Args:
            step: batches trained, this one included.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights during the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the model the averaged weights for good."""
        torch._foreach_copy_(self._live, self._average)

    def live_weights(self) -> list[Tensor]:
        """The weights that are trained, which a checkpoint holds beside the averaged ones."""
        return [value.detach().clone() for value in self._live]

    @torch.no_grad()
    def load(self, live: list[Tensor]) -> None:
        """Take the model's weights, which were just loaded, for the average, and these for those that are trained."""
        torch._foreach_copy_(self._average, self._live)
        torch._foreach_copy_(self._live, [value.to(self._live[0].device) for value in live])

    @torch.no_grad()
    def _swap(self) -> None:
        kept = [value.detach().clone() for value in self._live]
        torch._foreach_copy_(self._live, self._average)
        torch._foreach_copy_(self._average, kept)
