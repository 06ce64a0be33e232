"""From stored 8-bit pixels to what the model sees; on whole batches, on the device where they lie."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from colotride.errors import DataError


@dataclass(frozen=True)
class TrainingCrops:
    """A random crop for every image of a batch, mirrored or not; any of the images can be cut by itself."""

    draws: Float[Tensor, "3 batch"]
    """Uniform in [0, 1): for the row, the column and the mirror of every crop."""
    image_size: int
    """Side of the crop."""
    flip: bool
    """Whether to mirror with probability 1/2."""

    @classmethod
    def draw(cls, count: int, image_size: int, flip: bool, random: torch.Generator) -> "TrainingCrops":
        """Draw the crops of a batch.

        Args:
            count: images of the batch.
            image_size: side of the crop, at most the stored side.
            flip: whether to mirror.
            random: CPU generator, so that every device and every process sees the same crops.
        """
        return cls(torch.rand(3, count, generator=random), image_size, flip)

    def __call__(
        self, pixels: UInt8[Tensor, "images channels height width"], places: Int[Tensor, "images"]
    ) -> Float[Tensor, "images channels size size"]:
        """Cut some images of the batch; pixels in [0, 1].

        Args:
            pixels: stored images.
            places: of these images in the batch, on the CPU.

        Raises:
            DataError: the crop is larger than the images.
        """
        count, _, height, width = pixels.shape
        _check_crop(height, width, self.image_size)
        draws = self.draws[:, places].to(pixels.device)
        top = (draws[0] * (height - self.image_size + 1)).long()
        left = (draws[1] * (width - self.image_size + 1)).long()
        steps = torch.arange(self.image_size, device=pixels.device)
        rows = top[:, None] + steps
        columns = left[:, None] + steps
        if self.flip:
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
