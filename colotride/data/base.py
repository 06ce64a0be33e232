"""The interface of data sets: image sets, and the two sides of a source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor

from colotride.errors import DataError

CACHE_FOLDER = ".colotride"
"""Folder in a data root that holds cached images; it is not part of any data set."""


@runtime_checkable
class ImageSet(Protocol):
    """Images with class labels, read by index.

    Images are stored at one size ("stored size"), as 8-bit pixels; `colotride.data.augmentation` crops, flips and
    scales them to [0, 1].

    A set whose source names its classes has a further attribute, `class_names: Mapping[int, str]`; see `class_name`.
    """

    @property
    def name(self) -> str:
        """Name of the set and its part, for messages and reports ("digits/test")."""
        ...

    @property
    def labels(self) -> Int[Tensor, "images"]:
        """Class of every image (int64, CPU); classes are numbered as in the source, not from 0."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """The images at these indices, 8 bits per channel, on the CPU.

        Raises:
            DataError: an image file that cannot be decoded, named in the message.
        """
        ...


def check_matches(images: ImageSet) -> None:
    """Refuse images of which triplets or queries cannot be made: each needs a match and an image of another class.

    Raises:
        DataError: fewer than two classes, or a class with a single image, named in the message.
    """
    classes, counts = images.labels.unique(return_counts=True)
    if len(classes) < 2:
        raise DataError(f"{images.name} has {len(classes)} class; two classes or more are needed to tell images apart")
    if int(counts.min()) < 2:
        single = classes[counts < 2].tolist()
        raise DataError(
            f"{images.name} has {len(single)} classes with a single image, the first is {single[0]}: "
            "no match can be found for it; add images to such classes or remove them"
        )


def class_name(images: ImageSet, label: int) -> str:
    """Name of a class in reports: that of the source if it has one ("Laysan Albatross"), else "class 2"."""
    names: Mapping[int, str] = getattr(images, "class_names", None) or {}
    return names.get(label, f"class {label}")


def subset_of(images: ImageSet, indices: Int[Tensor, "chosen"], name: str) -> ImageSet:
    """The part of an image set at these indices, without copying pixels."""
    return _Subset(images, indices, name)


class _Subset:
    def __init__(self, images: ImageSet, indices: Tensor, name: str) -> None:
        self._images, self._indices, self.name = images, indices, name
        self.labels: Tensor = images.labels[indices]
        self.class_names: Mapping[int, str] = getattr(images, "class_names", None) or {}

    def __len__(self) -> int:
        return len(self._indices)

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        return self._images.pixels(self._indices[indices])


class InMemoryImages:
    """An image set whose pixels fit in memory: [images, channels, height, width], 8-bit.

    Raises:
        DataError: pixels that are not 8-bit; NaN and values outside the range cannot be stored.
    """

    def __init__(
        self,
        name: str,
        pixels: Shaped[Tensor, "images channels height width"],
        labels: Int[Tensor, "images"],
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        if pixels.dtype != torch.uint8:
            raise DataError(f"pixels of {name} are {pixels.dtype}; give 8-bit ones (torch.uint8, 0 to 255)")
        self.name, self._pixels, self.labels = name, pixels, labels.to(torch.int64)
        self.class_names: Mapping[int, str] = class_names or {}

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Int[Tensor, "batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """See `ImageSet.pixels`."""
        return self._pixels[indices]


@dataclass(frozen=True)
class Source:
    """The two sides of a data set. Each is read when it is called for, so that training never touches the test side."""

    train: Callable[[], ImageSet]
    test: Callable[[], ImageSet]
    zero_shot: bool
    """Whether the test classes differ from the training classes."""


def missing(name: str, path: Path, remedy: str) -> DataError:
    """The error for a data set that was not found: where it was looked for, and how to get it."""
    return DataError(f"{name} is not at {path.absolute()}; {remedy}, and name the folder above it with --data-root")
