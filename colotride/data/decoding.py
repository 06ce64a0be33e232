"""From an image file to the pixels that are stored; imports no torch, so that decoding processes start at once."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from colotride.errors import DataError

RULE = "RGB, resized to a square, bilinear"
"""What `decode` does; a change of it makes every store another one."""

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes for more than 8 bits per channel, which it would cut off without a word."""


def decode(path: Path, size: int, images: str) -> NDArray[np.uint8]:
    """An image file as RGB, resized to a square: [3, size, size], 8-bit.

    Args:
        path: of the file.
        size: side of the square in pixels.
        images: name of the set, for the message.

    Raises:
        DataError: the file cannot be decoded, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode in DEEP_MODES:
                raise DataError(f"image {path} has pixels outside 0 to 255 ({image.mode}); save it with 8 bits")
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be decoded ({error}); fetch {images} again") from None
    return np.asarray(resized).transpose(2, 0, 1)
