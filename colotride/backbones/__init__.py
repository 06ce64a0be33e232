"""Networks to train and to evaluate, by one scheme of names; each kind of name has its file here.

`two-convolutions`, a torchvision classifier (`resnet18`), `timm:NAME`, `open_clip:NAME`, or a function of your own,
`package.module:function`. What a network expects of its pixels comes from its own record.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from colotride.backbones import functions, open_clip_models, timm_models, torchvision_models, two_convolutions
from colotride.backbones.base import PRETRAINED, RANDOM, Backbone
from colotride.backbones.weights import is_file, load_weights
from colotride.errors import ModelError

TWO_CONVOLUTIONS = two_convolutions.NAME

FORMS = "two-convolutions, resnet18 or another torchvision classifier, timm:NAME, open_clip:NAME or module:function"


@runtime_checkable
class Source(Protocol):
    """Where networks of one kind come from."""

    def check(self, name: str) -> None:
        """Refuse a name that does not exist, before anything is built.

        Raises:
            ModelError: no such network, or the package that has it is not installed.
        """

    def build(self, name: str, weights: str, *, channels: int, image_size: int) -> Backbone:
        """Make a network.

        Args:
            name: of the network, without the kind before the colon.
            weights: `PRETRAINED`, `RANDOM`, or a name of weights that only this source knows.
            channels: of the images.
            image_size: side of the images in pixels.

        Raises:
            ModelError: it cannot be made, or its weights are out of reach.
        """

    def record_size(self, name: str) -> int:
        """Side in pixels of the images that a network was made for, by its own record."""


def source_of(architecture: str) -> tuple[Source, str]:
    """Where a network comes from, and its name there.

    Raises:
        ModelError: the architecture is not of any known form.
    """
    kind, colon, name = architecture.partition(":")
    if kind == "timm" and name:
        return timm_models, name
    if kind == "open_clip" and name:
        return open_clip_models, name
    if architecture == TWO_CONVOLUTIONS:
        return two_convolutions, architecture
    if colon and name.isidentifier() and all(part.isidentifier() for part in kind.split(".")):
        return functions, architecture
    if not colon:
        return torchvision_models, architecture
    raise ModelError(f"architecture {architecture!r} is of no known form; give {FORMS}")


def is_own(architecture: str) -> bool:
    """Whether an architecture names a function or a class of somebody's own, which is imported to make the network.

    Raises:
        ModelError: the architecture is not of any known form.
    """
    return source_of(architecture)[0] is functions


def check_architecture(architecture: str) -> str:
    """The architecture itself, for a field of a configuration.

    Raises:
        ValueError: no such network, with the nearest names, or the package that has it is not installed.
    """
    try:
        source, name = source_of(architecture)
        source.check(name)
    except ModelError as error:
        raise ValueError(str(error)) from None
    return architecture


def record_size(architecture: str) -> int:
    """Side in pixels of the images that a network was made for, by its own record.

    Raises:
        ModelError: no such network.
    """
    source, name = source_of(architecture)
    source.check(name)
    return source.record_size(name)


def build_backbone(
    architecture: str,
    weights: str,
    *,
    embedding_dim: int | None,
    channels: int,
    image_size: int,
    sha256: str | None = None,
    module: nn.Module | None = None,
) -> Backbone:
    """Make a network, fill it with weights, and give it an embedding layer.

    Layers that start from random weights draw them from torch's global generator.

    Args:
        architecture: name of the network, in one of the forms above.
        weights: `PRETRAINED`, `RANDOM`, a file, or a name of weights that only open_clip knows.
        embedding_dim: width of the embedding layer; None embeds by the network's own features.
        channels: of the images.
        image_size: side of the images in pixels.
        sha256: of the file, if it is known what it must be.
        module: the network itself, where `architecture` only names one that was given as an object.

    Raises:
        ModelError: the network cannot be made, its weights are out of reach, or the file belongs to another network.
    """
    if module is not None:
        backbone = functions.of_module(module, architecture, channels)
    else:
        source, name = source_of(architecture)
        start = RANDOM if is_file(weights) else weights
        backbone = source.build(name, start, channels=channels, image_size=image_size)
    if is_file(weights):
        load_weights(backbone, Path(weights), architecture, sha256)
    backbone.fit(image_size)
    backbone.set_embedding(embedding_dim)
    return backbone


__all__ = [
    "PRETRAINED",
    "RANDOM",
    "TWO_CONVOLUTIONS",
    "Backbone",
    "build_backbone",
    "check_architecture",
    "is_own",
    "record_size",
    "source_of",
]
