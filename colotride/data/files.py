"""Image sets that lie as files on disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from colotride.errors import DataError

DECODERS = 8

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes for more than 8 bits per channel, which it would cut off without a word."""


class FileImages:
    """Images decoded from files when asked for, as RGB, resized to a square."""

    def __init__(self, name: str, paths: Sequence[Path], labels: Sequence[int], stored_size: int) -> None:
        self.name, self._paths, self._size = name, list(paths), stored_size
        self.labels: Tensor = torch.tensor(labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """See `ImageSet.pixels`; files are decoded side by side, because Pillow leaves the interpreter free."""
        with ThreadPoolExecutor(DECODERS) as pool:
            return torch.stack(list(pool.map(self._decode, indices.tolist())))

    def _decode(self, index: int) -> Tensor:
        path = self._paths[index]
        try:
            with Image.open(path) as image:
                if image.mode in DEEP_MODES:
                    raise DataError(f"image {path} has pixels outside 0 to 255 ({image.mode}); save it with 8 bits")
                resized = image.convert("RGB").resize((self._size, self._size), Image.Resampling.BILINEAR)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"image {path} cannot be decoded ({error}); fetch {self.name} again") from None
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
