"""Random starts of perturbations, drawn for a whole batch so that they do not depend on how many processes share it."""

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.distributed.shards import Shard
from colotride.pgd import lengths
from colotride.pgd_settings import Norm


def random_start(
    images: Float[Tensor, "images channels height width"],
    size: float,
    norm: Norm,
    shard: Shard,
    generator: torch.Generator,
) -> Float[Tensor, "images channels height width"]:
    """Images with noise: uniform in every pixel (linf), or in a uniform direction with a uniform length (l2).

    Args:
        images: this process's moving parts, one after the other, each with a row per own pair.
        size: largest change of a pixel value (linf) or largest length of the change (l2).
        norm: how the size is measured.
        shard: how the batch is divided.
        generator: CPU generator of this batch, the same in every process.

    Returns:
        The images with noise, not yet limited to [0, 1].
    """
    parts = len(images) // shard.counts[shard.group.rank]
    shape = (parts, shard.pairs, *images.shape[1:])
    if norm == "linf":
        noise = 2 * torch.rand(shape, generator=generator) - 1
    else:
        noise = torch.randn(shape, generator=generator).flatten(0, 1)
        length = torch.rand(len(noise), 1, 1, 1, generator=generator)
        noise = (length * noise / lengths(noise)).view(shape)
    return images + size * noise[:, shard.own].flatten(0, 1).to(images.device)
