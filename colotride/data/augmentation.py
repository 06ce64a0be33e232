"""From stored 8-bit pixels to what the model sees; on whole batches, on the device where they lie."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from colotride.errors import DataError


def training_view(
    pixels: UInt8[Tensor, "batch channels height width"], image_size: int, flip: bool, random: torch.Generator
) -> Float[Tensor, "batch channels size size"]:
    """A random crop of every image, mirrored with probability 1/2 when `flip` is set; pixels in [0, 1].

    Args:
        pixels: stored images.
        image_size: side of the crop, at most the stored side.
        flip: whether to mirror.
        random: CPU generator, so that every device sees the same crops.

    Raises:
        DataError: the crop is larger than the images.
    """
    count, _, height, width = pixels.shape
    _check_crop(height, width, image_size)
    draws = torch.rand(3, count, generator=random).to(pixels.device)
    top = (draws[0] * (height - image_size + 1)).long()
    left = (draws[1] * (width - image_size + 1)).long()
    steps = torch.arange(image_size, device=pixels.device)
    rows = top[:, None] + steps
    columns = left[:, None] + steps
    if flip:
        columns = torch.where(draws[2][:, None] < 0.5, columns.flip(1), columns)
    images = torch.arange(count, device=pixels.device)
    cut = pixels[images[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2).float().div_(255)


def evaluation_view(
    pixels: UInt8[Tensor, "batch channels height width"], image_size: int
) -> Float[Tensor, "batch channels size size"]:
    """The central crop of every image; pixels in [0, 1].

    Raises:
        DataError: the crop is larger than the images.
    """
    _check_crop(pixels.shape[2], pixels.shape[3], image_size)
    top, left = (pixels.shape[2] - image_size) // 2, (pixels.shape[3] - image_size) // 2
    return pixels[:, :, top : top + image_size, left : left + image_size].contiguous().float().div_(255)


def _check_crop(height: int, width: int, image_size: int) -> None:
    if image_size > min(height, width):
        raise DataError(
            f"images of {height} x {width} px have no crop of {image_size} px; set image_size to {min(height, width)} or less"
        )
