"""Image files: decoding them, sets of them, and pictures prepared for a model."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from colotride.data.augmentation import evaluation_view
from colotride.errors import DataError
from colotride.markdown import printable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})
"""Suffixes by which image files are recognised, in lower case."""

RULE = "RGB, turned upright, resized to a square, bilinear"
"""What `decode` does. Cached images are decoded again when it changes."""

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes with more than 8 bits per channel, which `convert` would clip silently."""

THREADS = 8
"""Threads that decode a batch; Pillow releases the interpreter lock while it decodes and resizes."""


class FileImages:
    """Images that are decoded from files on every access, as RGB, resized to a square."""

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        labels: Sequence[int],
        stored_size: int,
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        self.name, self.paths, self.stored_size = name, list(paths), stored_size
        self.labels: Tensor = torch.tensor(labels, dtype=torch.int64)
        self.class_names: Mapping[int, str] = class_names or {}

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """See `ImageSet.pixels`."""
        return _decoded([self.paths[index] for index in indices.tolist()], self.stored_size)


def load_pictures(
    paths: Sequence[str | os.PathLike[str]], stored_size: int, image_size: int
) -> Float[Tensor, "pictures 3 size size"]:
    """Image files as a model sees them in an evaluation: resized to a square, centre crop, pixels in [0, 1].

    Orientation stored in EXIF is applied, transparency is dropped, and grey pictures become RGB.

    Args:
        paths: at least one file.
        stored_size: side in pixels of the square.
        image_size: side in pixels of the crop.

    Raises:
        DataError: no path, a file that cannot be decoded or has more than 8 bits per channel, or a crop that is larger
            than the square.
    """
    if not paths:
        raise DataError("there are no pictures to load; give the path of at least one image file")
    return evaluation_view(_decoded(paths, stored_size), image_size)


def decode(path: str | os.PathLike[str], size: int) -> NDArray[np.uint8]:
    """An image file as RGB, turned upright by its EXIF orientation and resized to a square: [3, size, size], 8-bit.

    Pictures with 16 bits or floating-point pixels are refused, because there is no one way to map them to 8 bits.

    Raises:
        DataError: the file cannot be decoded, is not a regular file, or has more than 8 bits per channel.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"image {printable(os.fspath(path))} has a name that is not UTF-8 text; rename it") from None
    try:
        # Opening a named pipe would wait for a writer forever.
        if os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"image {os.fspath(path)} is not a regular file; replace or remove it")
        with Image.open(path) as image:
            if image.mode in DEEP_MODES:
                raise DataError(
                    f"image {os.fspath(path)} has more than 8 bits per channel ({image.mode}); save it with 8 bits"
                )
            upright = ImageOps.exif_transpose(image)
            resized = upright.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        # Pillow's readers report damage with any of these.
        reason = " ".join(str(error).split())
        raise DataError(f"image {os.fspath(path)} cannot be decoded ({reason}); replace or remove it") from None
    return np.asarray(resized).transpose(2, 0, 1)


def _decoded(paths: Sequence[str | os.PathLike[str]], size: int) -> UInt8[Tensor, "pictures 3 size size"]:
    with ThreadPoolExecutor(THREADS) as pool:
        return torch.from_numpy(np.stack(list(pool.map(lambda path: decode(path, size), paths))))
