"""What every kind of network has: its layers, its head, and what it expects of its pixels."""

import difflib
import importlib.util
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from colotride.errors import ModelError

PRETRAINED, RANDOM = "pretrained", "none"
"""Weights that come with a network's name, and no weights at all."""


class Backbone:
    """A network that becomes an embedding: its last layer, the head, is replaced.

    Attributes:
        network: from normalised pixels to whatever the head gives.
        heads: names of the layers that `set_embedding` replaces; weights for them are never needed.
        mean, std: of the pixels that the network was trained on, per channel.
    """

    def __init__(
        self, network: nn.Module, *, heads: Collection[str], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.network, self.heads = network, tuple(heads)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))

    def set_embedding(self, dim: int | None) -> None:
        """Replace the head by a linear layer with random weights, or by nothing where `dim` is None.

        Raises:
            ModelError: the network has no layer to replace.
        """
        name = self.heads[-1]
        parent, _, leaf = name.rpartition(".")
        setattr(self.network.get_submodule(parent), leaf, like(self.network.get_submodule(name), dim))

    def fit(self, image_size: int) -> None:
        """Prepare the network for images of this side, after its weights were loaded.

        Raises:
            ModelError: the network takes images of one size only.
        """

    def own_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights from a file, under the names that the network has for them."""
        return weights


def like(head: nn.Module, dim: int | None) -> nn.Module:
    """A layer in place of a head: of the same kind, with `dim` outputs; None passes on what comes in."""
    if dim is None:
        return nn.Identity()
    if isinstance(head, nn.Linear):
        return nn.Linear(head.in_features, dim)
    assert isinstance(head, nn.Conv2d)
    return nn.Conv2d(head.in_channels, dim, 1)


def require(package: str, extra: str, name: str) -> None:
    """Refuse a name whose package is not installed.

    Raises:
        ModelError: the package is missing.
    """
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{name} needs {package}, which is not installed: pip install 'colotride[{extra}]'")


def nearest(name: str, known: Collection[str]) -> str:
    """The names that an unknown one may have meant, for a message; nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
