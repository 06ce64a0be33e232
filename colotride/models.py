"""Embedding models: pixels in [0, 1] to L2-normalised embeddings."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from colotride.backbones import PRETRAINED, RANDOM, TWO_CONVOLUTIONS, build_backbone, check_architecture
from colotride.backbones.weights import digest_of, is_file
from colotride.errors import ModelError
from colotride.fine_tuning import add_low_rank, train_last_blocks
from colotride.folding import FoldedNetwork, fold, fold_batchnorm
from colotride.settings import Settings
from colotride.step_graphs import CudaGraphs, StepRecorder

__all__ = ["TWO_CONVOLUTIONS", "EmbeddingModel", "ModelSettings", "UnitEmbeddings", "build_model"]

IMAGENET = "imagenet"
"""Another word for `PRETRAINED`."""


class ModelSettings(Settings):
    """Which network, and how it starts."""

    architecture: Annotated[str, AfterValidator(check_architecture)] = "resnet18"
    """`resnet18` or another torchvision classifier, `timm:NAME`, `open_clip:NAME` (also `open_clip:hf-hub:...`), your
    own `package.module:function`, or `two-convolutions` (Madry et al., for small images)."""
    embedding_dim: int | None = Field(default=512, ge=2)
    """Dimensions of the embedding; null embeds by the network's own features, without a new layer."""
    weights: str = IMAGENET
    """`imagenet` or `pretrained` (the weights that belong to the name, downloaded when they are not cached), `none`
    (random), a file (.safetensors, or .pth with tensors only), or a tag of open_clip's."""
    weights_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file of weights; found by itself when the file is first named."""
    trainable_blocks: int | None = Field(default=None, ge=0)
    """Train only the network's last blocks and what follows them: 0 trains the embedding layer alone, null
    everything."""
    lora_rank: int | None = Field(default=None, ge=1)
    """Train the embedding layer, and beside each linear layer of the blocks a product of two matrices of this width
    (LoRA, with peft), instead of the blocks' own weights."""
    freeze_batchnorm: bool = True
    """Keep BatchNorm's statistics as they are while training (RobRank's `freeze_bn`)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network while training; embeddings, distances and weights are always float32, and so is
    every evaluation of a finished run."""
    compile: bool = False
    """Compile the passes inside a perturbation with torch.compile (with CUDA graphs on a GPU)."""
    cuda_graphs: bool = False
    """Record a whole PGD step of training as a CUDA graph in every perturbation, and replay it: meant for small images, where
    the host is slower than the GPU."""

    @model_validator(mode="before")
    @classmethod
    def _weights_by_digest(cls, values: Any) -> Any:
        """Name the file of weights by its absolute path and its content, which alone decides the numbers."""
        weights = values.get("weights") if isinstance(values, dict) else None
        if not isinstance(weights, str | Path) or not is_file(str(weights)):
            return values
        path = Path(weights).expanduser().absolute()
        digest = values.get("weights_sha256")
        try:
            return values | {"weights": str(path), "weights_sha256": digest or digest_of(path)}
        except ModelError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _digest_of_a_file(self) -> "ModelSettings":
        if self.weights_sha256 is not None and not is_file(self.weights):
            raise ValueError("weights_sha256 belongs to a file of weights, and weights names none; set it to null")
        return self

    @model_validator(mode="after")
    def _graphs_once(self) -> "ModelSettings":
        if self.compile and self.cuda_graphs:
            raise ValueError(
                "compile and cuda_graphs exclude each other: a compiled network has CUDA graphs of its own; set one to false"
            )
        return self

    def untrained(self) -> "ModelSettings":
        """The same network without its start weights, for a checkpoint that overwrites all of them."""
        return self.model_copy(update={"weights": RANDOM, "weights_sha256": None})


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
    recorder: StepRecorder | None = None
    """Records the steps of perturbations, or None."""

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        freeze_batchnorm: bool,
        precision: Literal["float32", "bfloat16"] = "float32",
        compile: bool = False,
        recorder: StepRecorder | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels or len(mean)
        """Of the images that the backbone takes."""
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.freeze_batchnorm, self.precision, self._compile = freeze_batchnorm, precision, compile
        self.recorder = recorder
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

    def inference_path(self) -> str:
        """In words, which path `inference_forward` takes: how many BatchNorms are folded, or why none is."""
        return fold(self.backbone)[1]

    def records(self, device: torch.device) -> bool:
        """Whether `record` is of use for steps on this device."""
        return self.recorder is not None and self.recorder.serves(device)

    def record(self, step: Callable[[], object]) -> Callable[[], None]:
        """Take a step through this network once, and return what takes it again; see `StepRecorder`.

        Raises:
            ModelError: the model has no recorder; `records` says so.
        """
        if self.recorder is None:
            raise ModelError("the model records no steps; set model.cuda_graphs")
        before, each = self.passes, list[int]()

        def counted() -> None:
            start = self.passes
            step()
            each.append(self.passes - start)

        replay = self.recorder.record(counted, self.mean.device)
        self.passes = before + each[0]

        def again() -> None:
            start = self.passes
            replay()
            self.passes = start + each[0]

        return again

    def _embed(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        self.passes += len(images)
        pixels = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        low = torch.autocast(pixels.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with low:
            embeddings = network(pixels)
        return functional.normalize(embeddings.to(pixels.dtype), dim=1)

    def train(self, mode: bool = True) -> "EmbeddingModel":
        """Switch to training mode; BatchNorm layers that are frozen stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
                self.freeze_batchnorm or (module.affine and not module.weight.requires_grad)
            ):
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


def build_model(
    settings: ModelSettings, *, channels: int, image_size: int, seed: int, backbone: nn.Module | None = None
) -> EmbeddingModel:
    """Build the network with reproducible random weights.

    Args:
        settings: architecture, start weights, embedding width.
        channels: of the images, 1 or 3.
        image_size: side of the images in pixels.
        seed: of the layers that start from random weights; torch's global generator is left unchanged.
        backbone: the network itself, where the architecture only names one that was given as an object.

    Raises:
        ModelError: the architecture cannot be built, or its weights can be neither found nor downloaded, or belong to
            another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build_backbone(
            settings.architecture,
            PRETRAINED if settings.weights == IMAGENET else settings.weights,
            embedding_dim=settings.embedding_dim,
            channels=channels,
            image_size=image_size,
            sha256=settings.weights_sha256,
            module=backbone,
        )
        if settings.lora_rank is not None:
            add_low_rank(built.network, settings.lora_rank, settings.trainable_blocks)
        elif settings.trainable_blocks is not None:
            train_last_blocks(built.network, settings.trainable_blocks)
    return EmbeddingModel(
        built.network,
        built.mean,
        built.std,
        freeze_batchnorm=settings.freeze_batchnorm,
        precision=settings.precision,
        compile=settings.compile,
        recorder=CudaGraphs() if settings.cuda_graphs else None,
        channels=channels if settings.architecture == TWO_CONVOLUTIONS else None,
    )
