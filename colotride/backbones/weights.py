"""Weights in a file: compared with the network by name and shape before any of them is adopted."""

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from colotride.backbones.base import Backbone, first_line
from colotride.errors import ModelError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Of files of weights; all but the first are read with `weights_only=True`, which runs no code of theirs."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights in a larger dictionary."""

COUNTERS = "num_batches_tracked"
"""Of BatchNorm, which ignores it wherever its momentum is a number; older files lack it."""

SHOWN = 3
"""Names in a message."""


def is_file(weights: str) -> bool:
    """Whether a setting of weights names a file rather than weights that a network's source knows."""
    return weights.endswith(SUFFIXES)


def digest_of(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"weights {path} cannot be read ({error.strerror}); give the path of a file") from None


def load_weights(backbone: Backbone, path: Path, architecture: str, sha256: str | None) -> None:
    """Adopt the weights of a file, which may lack the head or have another one.

    Args:
        backbone: still with its own head.
        path: of the file.
        architecture: for messages.
        sha256: what the file's digest must be, if it is known.

    Raises:
        ModelError: the file cannot be read, is another than it was, or holds the weights of another network.
    """
    if sha256 is not None and (found := digest_of(path)) != sha256:
        raise ModelError(
            f"weights {path} have the SHA-256 {found[:12]}..., but the configuration says {sha256[:12]}...; give the "
            "file that it was made with, or set --run.model.weights-sha256 none"
        )
    given = backbone.own_names(read_weights(path))
    own = backbone.network.state_dict()
    heads = tuple(f"{head}." for head in backbone.heads)
    given = {name: value for name, value in given.items() if not name.startswith(heads)} if heads else given
    expected = {name: value for name, value in own.items() if not heads or not name.startswith(heads)}
    missing = [name for name in expected if name not in given and not name.endswith(COUNTERS)]
    unknown = [name for name in given if name not in expected]
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in given.items()
        if name in expected and value.shape != expected[name].shape
    ]
    found_wrong = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    if any(found_wrong.values()):
        lines = [f"{_shown(names)} {what}" for what, names in found_wrong.items() if names]
        raise ModelError(f"weights {path} do not fit {architecture}: {'; '.join(lines)}")
    backbone.network.load_state_dict(given, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    digest_of(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"weights {path} cannot be read ({first_line(error)}); give safetensors, or a file of torch.save that "
            "holds tensors only"
        ) from None
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"weights {path} are not a dictionary of tensors; save the model's state_dict()")
    parallel = all(name.startswith("module.") for name in found)
    return {name.removeprefix("module.") if parallel else name: value for name, value in found.items()}


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
