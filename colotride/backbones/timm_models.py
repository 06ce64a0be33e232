"""Networks of timm (PyTorch Image Models), by name: an extra."""

import importlib
from typing import Any

from torch import nn

from colotride.backbones.base import PRETRAINED, RANDOM, Backbone, first_line, nearest, require
from colotride.errors import ModelError

HUB = ("hf-hub:", "hf_hub:", "local-dir:")
"""Begin names that timm reads from the Hugging Face hub, or from a folder of the same layout."""


class TimmBackbone(Backbone):
    """A network of timm, whose record names its pixels, size, pooling and head."""

    def __init__(self, network: nn.Module, name: str) -> None:
        self.record: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        head = self.record.get("classifier") or ()
        super().__init__(
            network,
            heads=[head] if isinstance(head, str) else head,
            mean=self.record["mean"],
            std=self.record["std"],
        )
        self.name = name

    def set_embedding(self, dim: int | None) -> None:
        """Replace the classifier; the pooling before it stays as the record has it."""
        self.network.reset_classifier(dim or 0)  # type: ignore[operator]

    def fit(self, image_size: int) -> None:
        """Interpolate the position embeddings of a transformer that was made for images of another size."""
        if not self.record.get("fixed_input_size") or image_size == self.record["input_size"][-1]:
            return
        resize = getattr(self.network, "set_input_size", None)
        try:
            if resize is None:
                raise ModelError("it cannot be resized")
            resize(img_size=(image_size, image_size))
        except Exception as error:
            # Whatever a network refuses its new size with: an assertion, a division that leaves a remainder.
            raise ModelError(
                f"timm:{self.name} is made for images of {self.record['input_size'][-1]} px, not {image_size} "
                f"({first_line(error)}); set --run.data.image-size"
            ) from None


def check(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        ModelError: no such network, with the nearest names, or timm is not installed.
    """
    require("timm", "timm", f"timm:{name}")
    if name.startswith(HUB):
        return
    timm = importlib.import_module("timm")
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise ModelError(f"timm has no network {plain!r}{nearest(plain, timm.list_models())}")
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        raise ModelError(f"timm has no weights {tag!r} of {plain}; there are {', '.join(tags) or 'none'}")


def build(name: str, weights: str, *, channels: int, image_size: int) -> Backbone:
    """A network with the weights of its name, or with random ones.

    Raises:
        ModelError: its weights are neither cached nor downloadable.
    """
    check(name)
    if weights not in (PRETRAINED, RANDOM):
        raise ModelError(f"timm:{name} has no weights {weights!r}; give {PRETRAINED}, {RANDOM} or a file")
    timm = importlib.import_module("timm")
    try:
        network = timm.create_model(name, pretrained=weights == PRETRAINED)
    except Exception as error:
        # timm passes on whatever the hub's client and the network raise.
        raise ModelError(
            f"timm:{name} cannot be made with {weights} weights ({type(error).__name__}: {first_line(error)}); "
            "name a file with --run.model.weights FILE, or start from random weights with --run.model.weights none"
        ) from error
    return TimmBackbone(network, name)


def record_size(name: str) -> int:
    """The size of the record; its test size is another, which few networks have."""
    timm = importlib.import_module("timm")
    if name.startswith(HUB):
        return int(timm.create_model(name).pretrained_cfg["input_size"][-1])
    return int(timm.get_pretrained_cfg(name).input_size[-1])
