"""Reading a run's folder: its configuration, and its model as it was last saved; and writing a published one."""

import logging
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from colotride.backbones import PRETRAINED, is_own
from colotride.config import RunConfig, load_config, save_config
from colotride.documents import read_json
from colotride.errors import CheckpointError, ModelError
from colotride.io import write_atomically
from colotride.models import IMAGENET, TWO_CONVOLUTIONS, EmbeddingModel, build_model
from colotride.training.checkpoint import CHECKPOINTS, WEIGHTS, digest_of_file, load_newest
from colotride.training.run_directory import CONFIG, PUBLISHED, config_digest


class Published(BaseModel):
    """What goes with the weights of a published run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    weights_sha256: str
    version: str
    """Of ColoTride that published it."""
    start: str = ""
    """The weights that the training started from: the digest of their file, or their name."""
    origin: str = ""
    """Of what the weights were made, where they were not trained."""


def save_published(
    config: RunConfig, model: EmbeddingModel, folder: Path, *, start: str = "", origin: str = ""
) -> None:
    """Write a run with the weights of its end, in the form that `load_run` reads: three files, none of them pickled.

    Args:
        config: of the run.
        model: as it is.
        folder: an existing one.
        start: see `start_of`.
        origin: see `origin_of`.

    Raises:
        StorageError: the disk is full or not writable.
    """
    save_config(config, folder / CONFIG)
    weights = folder / WEIGHTS
    write_atomically(weights, save({name: value.contiguous() for name, value in model.state_dict().items()}))
    about = Published(weights_sha256=digest_of_file(weights), version=version("colotride"), start=start, origin=origin)
    write_atomically(folder / PUBLISHED, (about.model_dump_json(indent=2) + "\n").encode())


def start_of(directory: Path, config: RunConfig) -> str:
    """The weights that a run started from: the digest of their file, or their name.

    Args:
        directory: of the run.
        config: of the run.

    Raises:
        CheckpointError: what was published of it is damaged.
    """
    published = _published(directory)
    if published is not None and published.start:
        return published.start
    name = config.model.weights
    return config.model.weights_sha256 or (PRETRAINED if name == IMAGENET else name)


def origin_of(directory: Path) -> str:
    """Of what the weights of a run were made, where they were not trained; else nothing.

    Raises:
        CheckpointError: what was published of it is damaged.
    """
    published = _published(directory)
    return "" if published is None else published.origin


def _published(directory: Path) -> Published | None:
    path = directory / PUBLISHED
    if not path.is_file():
        return None
    try:
        return Published.model_validate(read_json(path, "record", CheckpointError))
    except ValidationError:
        raise _not_whole(directory) from None


def _not_whole(directory: Path) -> CheckpointError:
    return CheckpointError(f"{directory} is not whole: fetch it again, or publish it again")


def load_run(directory: Path, backbone: nn.Module | None = None) -> tuple[RunConfig, EmbeddingModel]:
    """Read a run's configuration and its newest whole model, on the CPU and in evaluation mode.

    Args:
        directory: one that `colotride train` made, or one that `colotride push` has published.
        backbone: of a run that was trained from a module object, another module of the same layers, which takes the
            run's weights; None where the configuration says how to make the network.

    Raises:
        ModelError: the network cannot be made.
        CheckpointError: the folder holds no run, no whole checkpoint, or weights of another model than it describes.
        ConfigurationError: its configuration is not readable.
    """
    if not (directory / "config.yaml").is_file():
        raise CheckpointError(
            f"{directory} is not a run: it holds no config.yaml; give a folder that colotride train made"
        )
    path = directory / CONFIG
    config = load_config(path)
    weights = _published_weights(directory) if (directory / PUBLISHED).is_file() else _newest_weights(directory, config)
    first = weights.get("backbone.0.weight" if config.model.architecture == TWO_CONVOLUTIONS else "mean")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    # Every weight is overwritten: starting from downloaded ones would need the network for nothing. Results that are
    # compared are made in float32, whatever a run was trained in.
    settings = config.model.untrained().model_copy(
        update={"precision": "float32", "compile": False, "cuda_graphs": False}
    )
    try:
        model = build_model(
            settings, channels=channels, image_size=config.data.image_size, seed=config.seed, backbone=backbone
        )
    except ModelError as error:
        if backbone is not None or not is_own(config.model.architecture):
            raise
        raise ModelError(
            f"{error}. If the run was trained from a module object, give one of the same layers: "
            "ct.load(DIRECTORY, model=MODULE)"
        ) from error
    try:
        with torch.no_grad():
            model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2][:200]
        raise CheckpointError(
            f"{path} describes another model than the weights beside it ({reason}); restore the file that "
            "colotride train wrote"
        ) from None
    model.eval()
    return config, model


def _newest_weights(directory: Path, config: RunConfig) -> dict[str, Tensor]:
    checkpoint = load_newest(directory / CHECKPOINTS)
    if checkpoint is None:
        raise CheckpointError(f"run {directory} has no checkpoint yet; train it first with colotride train")
    if checkpoint.config_digest != config_digest(config):
        logging.getLogger("colotride").warning(
            "warning: %s is not what these weights were trained with: it was edited, or made by another version",
            directory / CONFIG,
        )
    return checkpoint.weights


def _published_weights(directory: Path) -> dict[str, Tensor]:
    path = directory / WEIGHTS
    try:
        published = _published(directory)
        if published is None or digest_of_file(path) != published.weights_sha256:
            raise CheckpointError(f"{path} is damaged: it is not the file that was published; fetch it again")
        return load_file(path)
    except (SafetensorError, OSError):
        raise _not_whole(directory) from None
