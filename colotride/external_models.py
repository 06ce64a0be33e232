"""Models from outside ColoTride: TorchScript, torch.export, or a function that returns a module."""

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colotride.errors import ModelError
from colotride.registry import modules_of_working_directory

FORMS = "a run's folder, an MLflow URI (models:/..., runs:/...), a .pt or .pt2 file, or package.module:function"


class ExternalModel(nn.Module):
    """A model from outside ColoTride: pixels [B, 3, H, W] in [0, 1] to embeddings [B, D].

    An error that it raises becomes one line that names the model.
    """

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.inner, self._name = inner, name

    def forward(self, images: Tensor) -> Any:
        """What the model returns; the caller checks that these are embeddings."""
        try:
            return self.inner(images)
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
            reason = next((line for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
            raise ModelError(
                f"model {self._name} failed on images {tuple(images.shape)} ({reason.strip()}); "
                "it must take [B, 3, H, W] pixels in [0, 1] of any batch size, see --image-size"
            ) from error

    def train(self, mode: bool = True) -> "ExternalModel":
        """Switch modes where the model supports it; an exported one has only the mode that it was exported in."""
        self.training = mode
        with suppress(NotImplementedError):
            self.inner.train(mode)
        return self


def load_external_model(spec: str) -> ExternalModel:
    """Load a model from a file or a function, on the CPU.

    Args:
        spec: path of a TorchScript file (`torch.jit.save`) or of an exported program (`torch.export.save`, .pt2), or
            `package.module:function`, looked for in the working directory too; the function takes no arguments.

    Raises:
        ModelError: none of these, or it cannot be loaded.
    """
    path = Path(spec)
    if path.is_file():
        return ExternalModel(_exported(path) if path.suffix == ".pt2" else _script(path), spec)
    module, colon, function = spec.partition(":")
    if not colon or not function.isidentifier() or "/" in module:
        raise ModelError(f"model {spec} is not there; give {FORMS}")
    return ExternalModel(_called(module, function, spec), spec)


def _script(path: Path) -> nn.Module:
    try:
        loaded: nn.Module = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model {path} is not a TorchScript file ({reason}); give {FORMS}") from None
    return loaded


def _exported(path: Path) -> nn.Module:
    try:
        return torch.export.load(path).module()
    except Exception as error:
        # torch.export documents no class of errors for a file that it cannot read.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {path} is not an exported program ({reason}); give {FORMS}") from None


def _called(module: str, function: str, spec: str) -> nn.Module:
    try:
        with modules_of_working_directory():
            made = getattr(importlib.import_module(module), function)()
    except Exception as error:
        # The user's code may raise anything, and its own message helps most.
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(f"model {spec} cannot be made ({type(error).__name__}: {reason}); give {FORMS}") from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"model {spec} is a {type(made).__name__}; the function must return a torch.nn.Module")
    return made
