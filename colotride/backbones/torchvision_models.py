"""torchvision's image classifiers, by name."""

import torch
from torch import nn

from colotride.backbones.base import PRETRAINED, RANDOM, Backbone, nearest
from colotride.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
USUAL = "resnet18"
"""The classifier of every configuration that names none: torchvision need not be imported to know that it exists."""


def names() -> list[str]:
    """Names of torchvision's image classifiers."""
    # torchvision takes as long to import as torch, so that every function imports it when it is called.
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def check(name: str) -> None:
    """Refuse a name that torchvision does not have.

    Raises:
        ModelError: no such classifier.
    """
    if name != USUAL and name not in names():
        raise ModelError(
            f"{name!r} is neither 'two-convolutions' nor a torchvision classifier such as 'resnet18'"
            f"{nearest(name, names())}; write timm:{name} for a network of timm"
        )


def build(name: str, weights: str, *, channels: int, image_size: int) -> Backbone:
    """A classifier, with the weights that torchvision recommends or with random ones.

    Raises:
        ModelError: its weights are neither cached nor downloadable, or it has no layer to become the embedding.
    """
    import torchvision

    if weights not in (PRETRAINED, RANDOM):
        raise ModelError(f"{name} has no weights {weights!r}; give {PRETRAINED}, {RANDOM} or a file")
    # The two Inception nets would otherwise return their auxiliary classifiers' outputs too while training.
    inception = name in {"googlenet", "inception_v3"}
    extra = {"aux_logits": False, "init_weights": weights == RANDOM} if inception else {}
    try:
        network = torchvision.models.get_model(name, weights="DEFAULT" if weights == PRETRAINED else None, **extra)
    except OSError as error:
        raise ModelError(
            f"ImageNet weights of {name} are neither in {torch.hub.get_dir()}/checkpoints nor downloadable "
            f"({error}); put the file there, name it with --run.model.weights FILE, or start from random weights with "
            "--run.model.weights none"
        ) from error
    return Backbone(network, heads=[_last_layer(network)], mean=IMAGENET_MEAN, std=IMAGENET_STD)


def record_size(name: str) -> int:
    """The crop of the evaluation behind the published accuracy."""
    import torchvision

    size: int = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    return size


def _last_layer(network: nn.Module) -> str:
    """Name of a classifier's last layer: linear, or a 1x1 convolution in SqueezeNet."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ModelError(f"{type(network).__name__} has no layer to become the embedding; choose another architecture")
    return layers[-1]
