"""Checkpoints: everything that the next batch depends on, written so that no incomplete one is taken for whole.

A checkpoint is a folder `checkpoints/<step>` with the weights (safetensors), the rest of the state, and the digests
of both. It appears under its name only when it is complete. It needs no random states: every draw comes from a stream
that is derived from the run's seed, the epoch and the step (`colotride.randomness`), which it holds.
"""

import hashlib
import json
import os
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from colotride.disk import check_writable, storage_error
from colotride.errors import CheckpointError

CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints within its own."""

WEIGHTS, STATE, DIGESTS = "model.safetensors", "state.pt", "digests.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two batches."""

    weights: dict[str, Tensor]
    """Parameters and buffers of the model."""
    optimizer: dict[str, Any]
    """The optimiser's `state_dict`."""
    defense: dict[str, Any]
    """The defense's `state_dict`."""
    progress: dict[str, Any]
    """Epoch, step, position in the epoch, running sums, history: plain values and tensors."""
    config_digest: str
    """Digest of the configuration that the run was made with."""


def save_checkpoint(checkpoint: Checkpoint, folder: Path, keep: int = 2) -> Path:
    """Write a checkpoint as `folder/<step>` and drop all but the newest ones.

    Args:
        checkpoint: what to write; `progress["step"]` names it.
        folder: the run's `checkpoints` folder; made when missing.
        keep: how many of the newest remain, at least 1.

    Raises:
        StorageError: the disk is full or not writable; older checkpoints are untouched.
        CheckpointError: the state cannot be written, for another reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
        try:
            contiguous = {name: value.detach().cpu().contiguous() for name, value in checkpoint.weights.items()}
            save_file(contiguous, temporary / WEIGHTS)
            rest = {name: getattr(checkpoint, name) for name in ("optimizer", "defense", "progress", "config_digest")}
            torch.save(rest, temporary / STATE)
            digests = {name: digest_of_file(temporary / name) for name in (WEIGHTS, STATE)}
            (temporary / DIGESTS).write_text(json.dumps(digests))
            target = folder / f"{checkpoint.progress['step']:09d}"
            shutil.rmtree(target, ignore_errors=True)
            os.chmod(temporary, 0o755)
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        # What torch and safetensors raise names no cause: the disk itself is asked.
        if isinstance(error, OSError) and (found := storage_error(error, folder)) is not None:
            raise found from error
        weights = sum(value.nbytes for value in checkpoint.weights.values())
        check_writable(folder, size=4 * weights + (1 << 20))
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"checkpoint in {folder} could not be written ({reason}); free some space and resume"
        ) from error
    for old in checkpoints_in(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((path for path in folder.glob("[0-9]*") if path.is_dir()), reverse=True)


def load_newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; None where there is none at all.

    A truncated or altered checkpoint is skipped in favour of the one before it.

    Raises:
        CheckpointError: there are checkpoints, but none is whole.
    """
    found = checkpoints_in(folder)
    for path in found:
        checkpoint = _load_if_whole(path)
        if checkpoint is not None:
            return checkpoint
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is whole; delete the folder to start the run again"
        )
    return None


def _load_if_whole(path: Path) -> Checkpoint | None:
    try:
        digests = json.loads((path / DIGESTS).read_text())
        if any(digest_of_file(path / name) != digests[name] for name in (WEIGHTS, STATE)):
            return None
        rest = torch.load(path / STATE, map_location="cpu", weights_only=True)
        return Checkpoint(weights=load_file(path / WEIGHTS), **rest)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, pickle.UnpicklingError):
        return None


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
