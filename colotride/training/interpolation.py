"""A model between two others, by interpolating their weights.

Two networks that were fine-tuned from the same weights lie in one valley of the loss, and what lies between them is a
network of its own that trades what one of them does well for what the other does (Wortsman et al., arXiv:2109.01903;
Croce et al., arXiv:2302.10164, for robust classifiers). A robust model and a natural one give every trade-off between
retrieval and robustness this way, without another training.
"""

from pathlib import Path

import torch

from colotride.config import RunConfig
from colotride.errors import CheckpointError, ConfigurationError
from colotride.io import new_folder
from colotride.training.runs import load_run, origin_of, save_published, start_of


def interpolate(first: Path, second: Path, share: float, directory: Path) -> Path:
    """Make a model whose weights are those of two runs in a proportion: (1 - share) first + share second.

    Args:
        first: folder of a run, such as one without a defense.
        second: folder of another that started from the same weights, such as a robust one. Its configuration, which
            decides how pictures are prepared, goes with the new model.
        share: of the second, in [0, 1].
        directory: a new folder, which is a run to every command that takes a trained one.

    Returns:
        The folder.

    Raises:
        ConfigurationError: a share outside [0, 1], or a folder that is there already.
        CheckpointError: a folder holds no run, or what lies between the two is no model: another network, image size or
            start.
        StorageError: the disk is full or not writable.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"share {share:g} is outside [0, 1]; give how much of the second model goes in")
    if directory.exists():
        raise ConfigurationError(f"{directory} is there already; give a new folder")
    (one, left), (other, right) = load_run(first), load_run(second)
    _check(first, one, second, other)
    weights, goal = left.state_dict(), right.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in goal.items()}:
        raise CheckpointError(
            f"nothing lies between {first} and {second}: their networks have other layers, or take images of other "
            "channels; train both from the same start"
        )
    with torch.no_grad():
        for name, value in goal.items():
            if value.is_floating_point():
                value.copy_(torch.lerp(weights[name], value, share))
    origin = f"{1 - share:g} of {_name(first)} and {share:g} of {_name(second)}"
    with new_folder(directory) as made:
        save_published(other, right, made, start=start_of(second, other), origin=origin)
    return directory


def _name(run: Path) -> str:
    """What a run is called, and of what it was made; no path, because a published model tells nobody those of this machine."""
    origin = origin_of(run)
    return f"{run.resolve().name} ({origin})" if origin else run.resolve().name


def _check(first: Path, one: RunConfig, second: Path, other: RunConfig) -> None:
    """Refuse two runs between which there is no model."""
    for what, left, right in (
        ("network", one.model.architecture, other.model.architecture),
        ("embedding_dim", one.model.embedding_dim, other.model.embedding_dim),
        ("image size", one.data.image_size, other.data.image_size),
        ("start weights", start_of(first, one), start_of(second, other)),
        ("lora_rank", one.model.lora_rank, other.model.lora_rank),
        ("seed, from which new layers start", one.seed, other.seed),
    ):
        if left != right:
            raise CheckpointError(
                f"nothing lies between {first} and {second}: they differ in {what} ({left} and {right}); train both "
                "from the same start"
            )
    if one.model.lora_rank is not None:
        raise CheckpointError(
            f"{first} has lora_rank {one.model.lora_rank}, and a product of interpolated matrices lies between nothing; "
            "train without it"
        )
