"""The gallery: every image's clean embedding and class, computed once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride.data.augmentation import evaluation_view
from colotride.data.base import ImageSet, check_matches
from colotride.errors import ModelError
from colotride.pgd import frozen

UNIT_LENGTH_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Gallery:
    """Clean embeddings and classes of all images; each image is also a query that leaves itself out."""

    embeddings: Float[Tensor, "images dim"]
    labels: Int[Tensor, "images"]
    """On the device of the embeddings."""

    def __len__(self) -> int:
        return len(self.labels)


def in_batches(indices: Int[Tensor, "queries"], batch_size: int) -> Iterator[Int[Tensor, "batch"]]:
    """Cut a list of image indices into batches."""
    yield from indices.split(batch_size)


def embed_gallery(
    model: nn.Module,
    images: ImageSet,
    *,
    image_size: int,
    batch_size: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Gallery:
    """Embed every image once, with the model held still.

    Args:
        model: maps pixels in [0, 1] to unit vectors.
        images: the gallery.
        image_size: side of the central crop.
        batch_size: images per pass.
        device: where the model is.
        progress: told the share that is done.

    Raises:
        ModelError: embeddings are not finite, not unit vectors, or not one row per image.
        DataError: a class has a single image: it has no match to be found.
    """
    check_matches(images)
    parts: list[Tensor] = []
    done = 0
    with frozen(model) as embed, torch.no_grad():
        for indices in in_batches(torch.arange(len(images)), batch_size):
            view = evaluation_view(images.pixels(indices).to(device), image_size)
            parts.append(checked(embed(view), len(indices), device))
            done += len(indices)
            if progress:
                progress(done / len(images))
    return Gallery(torch.cat(parts), images.labels.to(device))


def checked(embeddings: object, expected: int, device: torch.device) -> Float[Tensor, "images dim"]:
    """Pass embeddings on, or say what is wrong with them.

    Raises:
        ModelError: no tensor, another device, not one row per image, NaN or infinite values, lengths other than 1.
    """
    if not isinstance(embeddings, Tensor):
        raise ModelError(f"the model returned {type(embeddings).__name__}; it must return one tensor of embeddings")
    if embeddings.device.type != device.type:
        raise ModelError(
            f"the model returned embeddings on {embeddings.device} for images on {device}; "
            "it must keep its computation where its input is"
        )
    if embeddings.ndim != 2 or len(embeddings) != expected:
        raise ModelError(
            f"the model returned shape {tuple(embeddings.shape)} for {expected} images; "
            "it must return one embedding per image, [images, dimensions]"
        )
    if not bool(torch.isfinite(embeddings).all()):
        raise ModelError(
            "the model returned NaN or infinite embeddings; train it again or check its input range [0, 1]"
        )
    worst = float((embeddings.norm(dim=1) - 1).abs().max())
    if worst > UNIT_LENGTH_TOLERANCE:
        raise ModelError(
            f"the model returned embeddings whose length differs from 1 by {worst:.3g}; "
            "end it with torch.nn.functional.normalize"
        )
    return embeddings.float()
