"""The two-convolution net of Madry et al., for small images."""

from torch import nn

from colotride.backbones.base import PRETRAINED, Backbone
from colotride.errors import ModelError

NAME = "two-convolutions"


def check(name: str) -> None:
    """There is only one."""


def build(name: str, weights: str, *, channels: int, image_size: int) -> Backbone:
    """The network with random weights.

    Raises:
        ModelError: trained weights are asked for, or the images are too small to be pooled twice.
    """
    if weights not in (PRETRAINED, "none"):
        raise ModelError(f"{NAME} has no weights {weights!r}; leave them at none")
    return Backbone(network(channels, image_size, 10), heads=["9"], mean=[0.0], std=[1.0])


def record_size(name: str) -> int:
    """28 px, as in MNIST."""
    return 28


def network(channels: int, image_size: int, outputs: int) -> nn.Sequential:
    """5x5x32, pool, 5x5x64, pool, 1024, outputs.

    Args:
        channels: of the images.
        image_size: side of the images in pixels, at least 4.
        outputs: width of the last layer.

    Raises:
        ModelError: the images are too small to be pooled twice.
    """
    if image_size < 4:
        raise ModelError(f"{NAME} pools twice: images of {image_size} px are too small, use 4 px or more")
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (image_size // 4) ** 2, 1024),
        nn.ReLU(),
        nn.Linear(1024, outputs),
    )
