"""Embedding models: pixels in [0, 1] to L2-normalised embeddings."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from colotride.errors import ModelError
from colotride.folding import FoldedNetwork, fold_batchnorm
from colotride.settings import Settings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TWO_CONVOLUTIONS = "two-convolutions"


class ModelSettings(Settings):
    """Which network, and how it starts."""

    architecture: str = "resnet18"
    """`two-convolutions` (Madry et al., for small images) or any torchvision classifier by name (resnet18, ...)."""
    embedding_dim: int = Field(default=512, ge=2)
    """Dimensions of the embedding."""
    weights: Literal["imagenet", "none"] = "imagenet"
    """Start from torchvision's ImageNet weights (downloaded when they are not cached) or from random ones."""
    freeze_batchnorm: bool = True
    """Keep BatchNorm's statistics as they are while training (RobRank's `freeze_bn`)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network while training; embeddings, distances and weights are always float32, and so is
    every evaluation of a finished run."""
    compile: bool = False
    """Compile the passes inside a perturbation with torch.compile (with CUDA graphs on a GPU)."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, value: str) -> str:
        # torchvision takes as long to import as torch, and neither of these two names needs to be looked up.
        known = (TWO_CONVOLUTIONS, cls.model_fields["architecture"].default)
        if value not in known and value not in classifiers():
            raise ValueError(
                f"{value!r} is neither {TWO_CONVOLUTIONS!r} nor a torchvision classifier such as 'resnet18'"
            )
        return value


def classifiers() -> list[str]:
    """Names of torchvision's image classifiers."""
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def differs_in_training(model: nn.Module) -> bool:
    """Whether a model in its present mode differs from its evaluation mode: BatchNorm on batch statistics, dropout."""
    kinds: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    if "torchvision.ops" in sys.modules:
        kinds += (sys.modules["torchvision.ops"].StochasticDepth,)
    return any(module.training and isinstance(module, kinds) for module in model.modules())


class EmbeddingModel(nn.Module):
    """A backbone between the pixel normalisation and the L2 normalisation: f(x) of the paper.

    Epsilon is in pixel units because the mean and standard deviation of the backbone's training data are part of the
    model. One-channel images are repeated for a backbone that expects three channels. Weights and activations are
    channels-last in memory, the layout on which convolutions are fastest.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        freeze_batchnorm: bool,
        precision: Literal["float32", "bfloat16"] = "float32",
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.freeze_batchnorm, self.precision, self._compile = freeze_batchnorm, precision, compile
        self.passes = 0
        """Images that went through the network so far, in whatever mode."""
        # Inside a tuple, because a module would become part of this one and its weights would count twice.
        self._inference: tuple[FoldedNetwork | None, Callable[[Tensor], Tensor]] | None = None
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1] as unit vectors, float32 whatever the precision."""
        return self._embed(self.backbone, images)

    def inference_forward(self) -> Callable[[Tensor], Tensor]:
        """The fastest function with the same embeddings while the model is frozen in evaluation mode.

        BatchNorm is folded into the convolutions, from the weights as they are at this call; the layers and their
        weights are shared. Call this again after the weights have changed.
        """
        if self._inference is None:
            folded = fold_batchnorm(self.backbone)
            network: nn.Module = self.backbone if folded is None else folded
            mode = "reduce-overhead" if self.mean.is_cuda else "default"
            self._inference = (folded, torch.compile(network, mode=mode) if self._compile else network)
        folded, network_call = self._inference
        if folded is not None:
            folded.refresh()
        return lambda images: self._embed(network_call, images)

    def _embed(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        self.passes += len(images)
        pixels = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        low = torch.autocast(pixels.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with low:
            embeddings = network(pixels)
        return functional.normalize(embeddings.to(pixels.dtype), dim=1)

    def train(self, mode: bool = True) -> "EmbeddingModel":
        """Switch to training mode; frozen BatchNorm layers stay in evaluation mode."""
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class UnitEmbeddings(nn.Module):
    """Any model, with its embeddings normalised to length 1."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images dim"]:
        """Embed, and normalise; an embedding of length 1 stays as it is within rounding.

        Raises:
            ModelError: the model does not return one embedding per image.
        """
        embeddings: object = self.inner(images)
        if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or len(embeddings) != len(images):
            found = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise ModelError(
                f"the model returned {found} for {len(images)} images; it must return one embedding per image, "
                "[images, dimensions]"
            )
        if embeddings.is_complex():
            raise ModelError("the model returned complex embeddings; it must return real numbers")
        return functional.normalize(embeddings.to(images.dtype), dim=1)


def two_convolutions(channels: int, image_size: int, embedding_dim: int) -> nn.Sequential:
    """The two-convolution net of Madry et al.: 5x5x32, pool, 5x5x64, pool, 1024, embedding.

    Args:
        channels: of the images.
        image_size: side of the images in pixels, at least 4.
        embedding_dim: width of the last layer.

    Raises:
        ModelError: the images are too small to be pooled twice.
    """
    if image_size < 4:
        raise ModelError(f"{TWO_CONVOLUTIONS} pools twice: images of {image_size} px are too small, use 4 px or more")
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
        nn.Linear(1024, embedding_dim),
    )


def replace_last_layer(backbone: nn.Module, embedding_dim: int) -> None:
    """Put an embedding layer in the place of a classifier's last layer (linear, or 1x1 convolution in SqueezeNet).

    Raises:
        ModelError: the network has neither kind of layer.
    """
    layers = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ModelError(f"{type(backbone).__name__} has no layer to become the embedding; choose another architecture")
    parent_name, _, name = layers[-1].rpartition(".")
    last = backbone.get_submodule(layers[-1])
    embedding: nn.Module
    if isinstance(last, nn.Linear):
        embedding = nn.Linear(last.in_features, embedding_dim)
    else:
        assert isinstance(last, nn.Conv2d)
        embedding = nn.Conv2d(last.in_channels, embedding_dim, 1)
    setattr(backbone.get_submodule(parent_name), name, embedding)


def build_model(settings: ModelSettings, *, channels: int, image_size: int, seed: int) -> EmbeddingModel:
    """Build the network with reproducible random weights.

    Args:
        settings: architecture, start weights, embedding width.
        channels: of the images, 1 or 3.
        image_size: side of the images in pixels.
        seed: of the layers that start from random weights; torch's global generator is left unchanged.

    Raises:
        ModelError: the architecture cannot be built, or its ImageNet weights can be neither found nor downloaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.architecture == TWO_CONVOLUTIONS:
            backbone: nn.Module = two_convolutions(channels, image_size, settings.embedding_dim)
            mean, std = [0.0], [1.0]
        else:
            backbone = _torchvision_backbone(settings.architecture, settings.weights)
            replace_last_layer(backbone, settings.embedding_dim)
            mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    return EmbeddingModel(
        backbone,
        mean,
        std,
        freeze_batchnorm=settings.freeze_batchnorm,
        precision=settings.precision,
        compile=settings.compile,
    )


def _torchvision_backbone(architecture: str, weights: str) -> nn.Module:
    import torchvision

    pretrained = "DEFAULT" if weights == "imagenet" else None
    # The two Inception nets would otherwise return their auxiliary classifiers' outputs too while training.
    inception = architecture in {"googlenet", "inception_v3"}
    extra = {"aux_logits": False, "init_weights": pretrained is None} if inception else {}
    try:
        return torchvision.models.get_model(architecture, weights=pretrained, **extra)
    except OSError as error:
        raise ModelError(
            f"ImageNet weights of {architecture} are neither in {torch.hub.get_dir()}/checkpoints nor downloadable "
            f"({error}); put the file there, or start from random weights with --run.model.weights none"
        ) from error
