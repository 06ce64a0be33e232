"""Reading a run's folder: its configuration, and its model as it was last saved."""

from pathlib import Path

import torch

from colotride.config import RunConfig, load_config
from colotride.errors import CheckpointError
from colotride.models import TWO_CONVOLUTIONS, EmbeddingModel, build_model
from colotride.training.checkpoint import load_newest


def load_run(directory: Path) -> tuple[RunConfig, EmbeddingModel]:
    """Read a run's configuration and its newest whole model, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the folder holds no run, or no whole checkpoint.
        ConfigurationError: its configuration is not readable.
    """
    if not (directory / "config.yaml").is_file():
        raise CheckpointError(
            f"{directory} is not a run: it holds no config.yaml; give a folder that colotride train made"
        )
    config = load_config(directory / "config.yaml")
    checkpoint = load_newest(directory / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"run {directory} has no checkpoint yet; train it first with colotride train")
    first = "backbone.0.weight" if config.model.architecture == TWO_CONVOLUTIONS else "mean"
    channels = checkpoint.weights[first].shape[1]
    # Every weight is overwritten: starting from downloaded ones would need the network for nothing. Results that are
    # compared are made in float32, whatever a run was trained in.
    settings = config.model.untrained().model_copy(update={"precision": "float32", "compile": False})
    model = build_model(settings, channels=channels, image_size=config.data.image_size, seed=config.seed)
    with torch.no_grad():
        model.load_state_dict(checkpoint.weights)
    model.eval()
    return config, model
