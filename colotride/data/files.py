"""Image sets that lie as files on disk."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from colotride.data.decoding import decode

DECODERS = 8


class FileImages:
    """Images decoded from files when asked for, as RGB, resized to a square; a list of what a store is made from."""

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
        """See `ImageSet.pixels`; files are decoded side by side, because Pillow leaves the interpreter free."""
        with ThreadPoolExecutor(DECODERS) as pool:
            return torch.from_numpy(np.stack(list(pool.map(self._decode, indices.tolist()))))

    def _decode(self, index: int) -> np.ndarray:
        return decode(self.paths[index], self.stored_size, self.name)
