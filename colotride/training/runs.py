"""Reading a run's folder: its configuration, and its model as it was last saved."""

import logging
from pathlib import Path

import torch

from colotride.config import RunConfig, load_config
from colotride.errors import CheckpointError
from colotride.models import TWO_CONVOLUTIONS, EmbeddingModel, build_model
from colotride.training.checkpoint import CHECKPOINTS, load_newest
from colotride.training.run_directory import CONFIG, config_digest


def load_run(directory: Path) -> tuple[RunConfig, EmbeddingModel]:
    """Read a run's configuration and its newest whole model, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the folder holds no run, no whole checkpoint, or weights of another model than it describes.
        ConfigurationError: its configuration is not readable.
    """
    if not (directory / "config.yaml").is_file():
        raise CheckpointError(
            f"{directory} is not a run: it holds no config.yaml; give a folder that colotride train made"
        )
    path = directory / CONFIG
    config = load_config(path)
    checkpoint = load_newest(directory / CHECKPOINTS)
    if checkpoint is None:
        raise CheckpointError(f"run {directory} has no checkpoint yet; train it first with colotride train")
    if checkpoint.config_digest != config_digest(config):
        logging.getLogger("colotride").warning(
            "warning: %s is not what these weights were trained with: it was edited, or made by another version", path
        )
    first = checkpoint.weights.get("backbone.0.weight" if config.model.architecture == TWO_CONVOLUTIONS else "mean")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    # Every weight is overwritten: starting from downloaded ones would need the network for nothing. Results that are
    # compared are made in float32, whatever a run was trained in.
    settings = config.model.untrained().model_copy(update={"precision": "float32", "compile": False})
    model = build_model(settings, channels=channels, image_size=config.data.image_size, seed=config.seed)
    try:
        with torch.no_grad():
            model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2][:200]
        raise CheckpointError(
            f"{path} describes another model than the weights beside it ({reason}); restore the file that "
            "colotride train wrote"
        ) from None
    model.eval()
    return config, model
