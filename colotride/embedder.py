"""A trained model together with the preprocessing of its run: from pictures to embeddings in one call."""

import hashlib
from collections.abc import Iterator, Sequence
from os import PathLike

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from colotride.data.files import load_pictures
from colotride.errors import DataError
from colotride.models import EmbeddingModel, UnitEmbeddings
from colotride.pgd import frozen

Picture = str | PathLike[str]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value of a model with one channel (ITU-R 601, as in Pillow)."""


class Embedder:
    """Embeds image files and tensors as a run's evaluation would: resize, centre crop, network, unit length.

    Attributes:
        module: the network, in evaluation mode: pixels [images, channels, size, size] in [0, 1] to embeddings.
        image_size: side in pixels that the network sees.
        stored_size: side in pixels to which pictures are resized before the crop.
        channels: of the network's images, 1 or 3.
        device: where the network is.
    """

    def __init__(
        self, module: nn.Module, *, image_size: int, stored_size: int, channels: int, device: torch.device
    ) -> None:
        whole = module if isinstance(module, EmbeddingModel) else UnitEmbeddings(module)
        self.module = whole.to(device).eval()
        self.image_size, self.stored_size, self.channels, self.device = image_size, stored_size, channels, device

    def embed(
        self,
        images: Picture | Sequence[Picture] | Shaped[Tensor, "images channels height width"],
        *,
        batch_size: int = 64,
    ) -> Float[Tensor, "images dim"]:
        """Embed pictures.

        Args:
            images: paths of image files (or one), or a tensor of pixels: 8-bit, or floating-point in [0, 1]. A tensor
                of the network's own size is used as it is; any other is resized and cropped like a file.
            batch_size: images per pass through the network.

        Returns:
            Unit vectors, float32, on the CPU, in the order of the images.

        Raises:
            DataError: a file that cannot be decoded, named in the message, or pixels outside [0, 1].
            ModelError: the network does not return one embedding per image.
        """
        with frozen(self.module) as embed, torch.no_grad():
            found = [embed(view.to(self.device)).float().cpu() for view in self._views(images, batch_size)]
        if not found:
            raise DataError(
                "there are no images to embed; give paths of image files, or a tensor of at least one image"
            )
        return torch.cat(found)

    def prepare(self, image: Picture) -> Float[Tensor, "1 channels size size"]:
        """One image file as the network sees it: resized and cropped, pixels in [0, 1], on the CPU.

        Raises:
            DataError: the file cannot be decoded.
        """
        return next(self._views(image, 1))

    def digest(self) -> str:
        """Digest of everything that decides an embedding: weights and preprocessing."""
        content = hashlib.sha256(repr((self.image_size, self.stored_size, self.channels)).encode())
        for name, value in sorted(self.module.state_dict().items()):
            content.update(name.encode())
            content.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else b"")
        return content.hexdigest()

    def _views(
        self, images: Picture | Sequence[Picture] | Shaped[Tensor, "images channels height width"], batch_size: int
    ) -> Iterator[Tensor]:
        if isinstance(images, str | PathLike):
            images = [images]
        return self._of_tensor(images, batch_size) if isinstance(images, Tensor) else self._of_files(images, batch_size)

    def _of_files(self, paths: Sequence[Picture], batch_size: int) -> Iterator[Tensor]:
        for start in range(0, len(paths), batch_size):
            pictures = load_pictures(paths[start : start + batch_size], self.stored_size, self.image_size)
            yield pictures if self.channels == 3 else _grey(pictures)

    def _of_tensor(self, images: Tensor, batch_size: int) -> Iterator[Tensor]:
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(
                f"a tensor of shape {tuple(images.shape)} is not a batch of images; give [images, channels, height, "
                "width] with 1 or 3 channels"
            )
        for part in images.split(batch_size):
            yield self._view(part)

    def _view(self, images: Tensor) -> Float[Tensor, "images channels size size"]:
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        low, high = (float(value) for value in pixels.aminmax())
        if not (low >= 0 and high <= 1):
            raise DataError(f"pixels lie in {low:.3g} to {high:.3g}, not in [0, 1]; give 8-bit pixels or divide by 255")
        if self.channels == 1 and pixels.shape[1] == 3:
            pixels = _grey(pixels)
        elif self.channels == 3 and pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        if pixels.shape[2:] == (self.image_size, self.image_size):
            return pixels
        size = (self.stored_size, self.stored_size)
        resized = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True).clamp(0, 1)
        edge = (self.stored_size - self.image_size) // 2
        return resized[:, :, edge : edge + self.image_size, edge : edge + self.image_size]


def _grey(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 1 height width"]:
    return (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
