"""Image towers of open_clip, by name: an extra. Robust ones such as FARE load with `open_clip:hf-hub:...`."""

import importlib
from typing import Any

from torch import Tensor, nn

from colotride.backbones.base import PRETRAINED, RANDOM, Backbone, first_line, nearest, require
from colotride.backbones.functions import with_embedding
from colotride.errors import ModelError

PLACES = ("hf-hub:", "local-dir:")
"""Begin names whose weights lie where the name says: a repository of the Hugging Face hub, or a folder."""


class ImageTower(Backbone):
    """The image half of a CLIP; its own projection is the embedding where the width is the same."""

    def __init__(self, model: nn.Module) -> None:
        tower = model.visual
        assert isinstance(tower, nn.Module)
        record: dict[str, Any] = tower.preprocess_cfg  # type: ignore[assignment]
        super().__init__(tower, heads=[], mean=record["mean"], std=record["std"])
        self._model = (model,)
        """In a tuple, since the half that reads text is needed for its names only."""

    def set_embedding(self, dim: int | None) -> None:
        """Keep the tower's projection, or put a linear layer after it where another width is asked for."""
        self.network = with_embedding(self.network, int(self.network.output_dim), dim)  # type: ignore[arg-type]

    def own_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of a whole CLIP the image half; position embeddings of another size are interpolated."""
        if not any(name.startswith("visual.") for name in weights):
            weights = {f"visual.{name}": value for name, value in weights.items()}
        weights = dict(weights)
        importlib.import_module("open_clip.model").resize_pos_embed(weights, self._model[0])
        tower = {name: value for name, value in weights.items() if name.startswith("visual.")}
        return {name.removeprefix("visual."): value for name, value in tower.items()}


def check(name: str) -> None:
    """Refuse a name that open_clip does not have.

    Raises:
        ModelError: no such network, with the nearest names, or open_clip is not installed.
    """
    require("open_clip", "open-clip", f"open_clip:{name}")
    known = () if name.startswith(PLACES) else importlib.import_module("open_clip").list_models()
    if not name.startswith(PLACES) and name not in known:
        raise ModelError(f"open_clip has no network {name!r}{nearest(name, known)}")


def build(name: str, weights: str, *, channels: int, image_size: int) -> Backbone:
    """An image tower with the weights of its name, with those of a tag that open_clip knows, or with random ones.

    Raises:
        ModelError: no such tag, several of which none is named, or weights that are neither cached nor downloadable.
    """
    check(name)
    open_clip = importlib.import_module("open_clip")
    tag = None if weights == RANDOM or name.startswith(PLACES) else _tag(name, weights)
    try:
        model = open_clip.create_model(
            name,
            pretrained=tag,
            load_weights=weights != RANDOM,
            pretrained_text=False,
            force_image_size=image_size,
        )
    except Exception as error:
        # open_clip passes on whatever the hub's client and the network raise.
        raise ModelError(
            f"open_clip:{name} cannot be made with {weights} weights at {image_size} px ({type(error).__name__}: "
            f"{first_line(error)}); name a file with --run.model.weights FILE, or random weights with "
            "--run.model.weights none"
        ) from error
    return ImageTower(model.float())


def record_size(name: str) -> int:
    """The size in the network's own configuration."""
    open_clip = importlib.import_module("open_clip")
    if name.startswith(PLACES):
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        size = model.visual.preprocess_cfg["size"]
    else:
        size = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
    return int(size if isinstance(size, int) else size[0])


def _tag(name: str, weights: str) -> str:
    tags = importlib.import_module("open_clip").list_pretrained_tags_by_model(name)
    if weights in tags:
        return weights
    if weights == PRETRAINED and len(tags) == 1:
        return str(tags[0])
    what = f"has {len(tags)} sets of weights" if weights == PRETRAINED else f"has no weights {weights!r}"
    raise ModelError(f"open_clip:{name} {what}; give --run.model.weights one of {', '.join(tags) or 'none'}, or a file")
