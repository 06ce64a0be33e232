"""Embeddings and models so small that the right answer can be read off."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def on_circle(*degrees: float) -> Tensor:
    """Unit vectors of the plane at these angles; two of them are 2 sin(half the angle between them) apart."""
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def chord(degrees: float) -> float:
    """Distance of two unit vectors with this angle between them."""
    return 2 * math.sin(math.radians(degrees) / 2)


class FlatModel(nn.Module):
    """Pixels to unit vectors through one linear layer with fixed random weights."""

    def __init__(self, pixels: int = 12, dim: int = 5, seed: int = 0) -> None:
        super().__init__()
        weights = torch.randn(dim, pixels, generator=torch.Generator().manual_seed(seed))
        self.linear = nn.Linear(pixels, dim, bias=False)
        self.linear.weight = nn.Parameter(weights)

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.linear(images.flatten(1) - 0.5), dim=1)


def random_images(count: int, shape: tuple[int, int, int] = (3, 2, 2), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
