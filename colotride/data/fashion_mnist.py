"""Fashion-MNIST: 28-pixel images of ten kinds of clothes, the same classes on both sides."""

import gzip
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from colotride.data.base import ImageSet, InMemoryImages, Source, missing
from colotride.errors import DataError
from colotride.registry import register_dataset

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

REMEDY = "fetch it with colotride download fashion-mnist"


@register_dataset("fashion-mnist", fixed_size=True)
def fashion_mnist(root: Path, stored_size: int) -> Source:
    """Fashion-MNIST in torchvision's layout, ROOT/FashionMNIST/raw/*-ubyte, gzipped or not.

    Raises:
        DataError: when a side is read: the files are missing or are not IDX files of matching length.
    """
    folder = root / "FashionMNIST" / "raw"
    return Source(
        train=partial(_part, "fashion-mnist/train", folder, "train"),
        test=partial(_part, "fashion-mnist/test", folder, "t10k"),
        zero_shot=False,
    )


def _part(name: str, folder: Path, prefix: str) -> ImageSet:
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{name} in {folder} has {len(images)} images and {len(labels)} labels; {REMEDY} again")
    pixels, numbers = torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64))
    return InMemoryImages(name, pixels, numbers, dict(enumerate(NAMES)))


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and not packed.is_file():
        raise missing("fashion-mnist", path, REMEDY)
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        # IDX: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each as big-endian int32.
        magic, shape = content[:4], np.frombuffer(content, ">i4", dimensions, offset=4)
        if magic != bytes([0, 0, 8, dimensions]):
            raise ValueError("not an IDX file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); {REMEDY} again") from None
