"""Models from outside ColoTride: by name, TorchScript, torch.export, or a function that returns a module."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colotride.backbones import PRETRAINED, build_backbone, functions, record_size, torchvision_models
from colotride.errors import ModelError
from colotride.exported_programs import what_is_not_plain
from colotride.models import EmbeddingModel

HALF_ROUNDING = 0.01
"""How far from 1 rounding to half precision leaves a length."""

FORMS = (
    "a run's folder, timm:NAME, open_clip:NAME, resnet18, an MLflow URI (models:/..., runs:/...), a .pt or .pt2 file, "
    "or package.module:function"
)


class ExternalModel(nn.Module):
    """A model from outside ColoTride: pixels [B, 3, H, W] in [0, 1] to embeddings [B, D].

    Embeddings of half precision become float32, in which the attacks compute.

    An error that it raises becomes one line that names the model.
    """

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.inner, self._name = inner, name

    def forward(self, images: Tensor) -> Any:
        """What the model returns; the caller checks that these are embeddings."""
        try:
            embeddings = self.inner(images)
            halves = isinstance(embeddings, Tensor) and embeddings.dtype in (torch.float16, torch.bfloat16)
            return _in_full_precision(embeddings) if halves else embeddings
        except Exception as error:
            # The user's code may raise anything.
            reason = next((line for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
            raise ModelError(
                f"model {self._name} failed on images {tuple(images.shape)} ({reason.strip()}); it must take "
                f"[B, {images.shape[1]}, H, W] pixels in [0, 1] of any batch size, see --image-size"
            ) from error

    def train(self, mode: bool = True) -> "ExternalModel":
        """Switch modes where the model supports it; an exported one has only the mode that it was exported in."""
        self.training = mode
        with suppress(NotImplementedError):
            self.inner.train(mode)
        return self


def _in_full_precision(embeddings: Tensor) -> Tensor:
    """Embeddings as float32; lengths that are 1 within the rounding of half precision become 1."""
    full = embeddings.float()
    lengths = full.norm(dim=-1, keepdim=True)
    return torch.where((lengths - 1).abs() < HALF_ROUNDING, full / lengths, full)


def untrusted(spec: str, reason: str) -> ModelError:
    """The refusal of a model that would run code of whoever made it, only by being loaded.

    Args:
        spec: of the model.
        reason: what it is or holds.
    """
    return ModelError(
        f"model {spec} {reason}, and could run any code of whoever made it when it is loaded; "
        "give --trust if you trust its source"
    )


def load_external_model(
    spec: str, *, weights: str = PRETRAINED, image_size: int | None = None, trust: bool = False
) -> nn.Module:
    """Load a model by name, from a file or from a function, on the CPU.

    Args:
        spec: `timm:NAME`, `open_clip:NAME` or a torchvision classifier, whose features are the embedding; path of a
            TorchScript file (`torch.jit.save`) or of an exported program (`torch.export.save`, .pt2); or
            `package.module:function`, looked for in the working directory too; the function takes no arguments.
        weights: of a model by name: `pretrained`, `none`, a file, or a tag of open_clip's.
        image_size: side in pixels that a model by name will see; None for that of its own record.
        trust: whether an exported program may run code while it is loaded; see `exported_programs`.

    Raises:
        ModelError: none of these, it cannot be loaded, or it would run code without being trusted.
    """
    path = Path(spec)
    if is_name(spec):
        size = image_size or record_size(spec)
        built = build_backbone(spec, weights, embedding_dim=None, channels=3, image_size=size)
        return EmbeddingModel(built.network, built.mean, built.std, freeze_batchnorm=True).eval()
    if path.is_file():
        return ExternalModel(_exported(path, trust) if path.suffix == ".pt2" else _script(path), spec)
    module, colon, function = spec.partition(":")
    if not colon or not function.isidentifier() or "/" in module:
        raise ModelError(f"model {spec} is not there; give {FORMS}")
    return ExternalModel(functions.call(spec), spec)


def is_name(spec: str) -> bool:
    """Whether a model is one that a library knows by name, with a record of its images, rather than a file."""
    if spec.startswith(("timm:", "open_clip:")):
        return True
    return not Path(spec).exists() and spec.isidentifier() and spec in torchvision_models.names()


def _script(path: Path) -> nn.Module:
    try:
        with _quiet():
            loaded: nn.Module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"model {path} is not a TorchScript file ({reason}); save it with torch.jit.save or torch.export.save, "
            "for a pickle of torch.save is never read"
        ) from None
    return loaded


def _exported(path: Path, trust: bool) -> nn.Module:
    try:
        with _quiet(), path.open("rb") as file:
            odd = None if trust else what_is_not_plain(file)
            file.seek(0)
            if odd is None:
                return torch.export.load(file).module()
    except Exception as error:
        # torch.export documents no class of errors for a file that it cannot read.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {path} is not an exported program ({reason}); give {FORMS}") from None
    raise untrusted(str(path), odd)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's loaders: what fails is told in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
