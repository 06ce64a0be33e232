"""Networks of your own: a function `package.module:function` that returns a module, or the module itself."""

import importlib

import torch
from torch import Tensor, nn

from colotride.backbones.base import PRETRAINED, RANDOM, Backbone, first_line
from colotride.errors import ModelError
from colotride.registry import modules_of_working_directory


class OwnBackbone(Backbone):
    """A module from pixels in [0, 1] to embeddings; normalising the pixels is its own affair."""

    def __init__(self, network: nn.Module, name: str, channels: int) -> None:
        super().__init__(network, heads=[], mean=[0.0] * channels, std=[1.0] * channels)
        self.name, self.image_size = name, 0

    def fit(self, image_size: int) -> None:
        """Remember the size; any is taken to be right until the module refuses it."""
        self.image_size = image_size

    def set_embedding(self, dim: int | None) -> None:
        """Keep the module's own embedding, or put a linear layer after it where another width is asked for.

        Raises:
            ModelError: the module refuses the images, or does not return one embedding per image.
        """
        self.network = with_embedding(self.network, self._width(), dim)

    def _width(self) -> int:
        training = self.network.training
        images = torch.zeros(2, len(self.mean), self.image_size, self.image_size)
        try:
            with torch.no_grad():
                found: object = self.network.eval()(images)
        except Exception as error:
            # The user's code may raise anything, and its own message helps most.
            raise ModelError(
                f"model {self.name} failed on images {tuple(images.shape)} ({first_line(error)}); it must take pixels "
                "[B, C, H, W] in [0, 1] of the run's size"
            ) from error
        finally:
            self.network.train(training)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(
                f"model {self.name} returned {shape} for {len(images)} images; it must return one embedding per "
                "image, [images, dimensions]"
            )
        return found.shape[1]


def with_embedding(network: nn.Module, width: int, dim: int | None) -> nn.Module:
    """A network of this width whose embeddings have `dim` dimensions, by one more linear layer where these differ."""
    return network if dim in (None, width) else nn.Sequential(network, nn.Linear(width, dim or 0))


def check(name: str) -> None:
    """A function is called only when its network is needed; until then its name is enough."""


def build(name: str, weights: str, *, channels: int, image_size: int) -> Backbone:
    """What the function returns, with the weights that it has.

    Raises:
        ModelError: the function cannot be called, or does not return a module.
    """
    if weights not in (PRETRAINED, RANDOM):
        raise ModelError(f"model {name} has no weights {weights!r}; give {PRETRAINED}, {RANDOM} or a file")
    return of_module(call(name), name, channels)


def of_module(module: nn.Module, name: str, channels: int) -> Backbone:
    """A module that was made elsewhere."""
    return OwnBackbone(module, name, channels)


def record_size(name: str) -> int:
    """224 px, since a function keeps no record."""
    return 224


def call(name: str) -> nn.Module:
    """The module that a function returns.

    Args:
        name: `package.module:function`, looked for in the working directory too; the function takes no arguments.

    Raises:
        ModelError: the function cannot be called, or does not return a module.
    """
    module, _, function = name.partition(":")
    try:
        with modules_of_working_directory():
            made = getattr(importlib.import_module(module), function)()
    except Exception as error:
        # The user's code may raise anything, and its own message helps most.
        raise ModelError(
            f"model {name} cannot be made ({type(error).__name__}: {first_line(error)}); "
            "give package.module:function, a function without arguments"
        ) from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"model {name} is a {type(made).__name__}; the function must return a torch.nn.Module")
    return made
