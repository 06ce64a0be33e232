"""Images of any usual form as an image set: tensors, arrays, and data sets of torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from colotride.data.base import ImageSet, InMemoryImages
from colotride.errors import DataError

CHANNELS = (1, 3)


def as_image_set(images: Any, labels: Any = None, *, name: str = "images") -> ImageSet:
    """Images of any usual form as an image set, kept in memory as 8-bit pixels.

    Args:
        images: one of these:
            - a tensor or array [images, channels, height, width] with 1 or 3 channels, or [images, height, width] of
              grey values, as uint8 or as floating-point numbers in [0, 1], which are rounded to 8 bits;
            - a NumPy array [images, height, width, channels] of the same kinds;
            - a `torch.utils.data.Dataset`, or any other object with a length, of pairs (image, label), where an image
              is a tensor, an array or a Pillow image, all of one size;
            - an `ImageSet`, which is returned as it is.
        labels: class of each image, integers; None where `images` has its own.
        name: of the set in messages and reports.

    Raises:
        DataError: another shape or type, pixels outside their range, labels that are missing, superfluous, not integers
            or not one per image.
    """
    if isinstance(images, Tensor | np.ndarray):
        if labels is None:
            raise DataError(f"{name} come without labels; give one integer per image as labels")
        pixels = _pixels(images, name)
        return InMemoryImages(name, pixels, _labels(labels, len(pixels), name))
    if labels is not None:
        raise DataError(
            f"{name} are given as {type(images).__name__} with labels apart; give images as a tensor or an array, "
            "or a data set of (image, label) without labels"
        )
    if isinstance(images, ImageSet):
        return images
    return _read_all(images, name)


def _pixels(images: Tensor | np.ndarray, name: str) -> UInt8[Tensor, "images channels height width"]:
    shape = tuple(images.shape)
    if isinstance(images, np.ndarray):
        if images.ndim == 4 and shape[1] not in CHANNELS and shape[3] in CHANNELS:
            images = images.transpose(0, 3, 1, 2)
        if images.dtype.kind not in "uif":
            raise DataError(f"{name} are of type {images.dtype}; give uint8, or floating-point numbers in [0, 1]")
        images = torch.from_numpy(np.ascontiguousarray(images))
    images = images.detach().cpu()
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] not in CHANNELS or 0 in shape:
        raise DataError(f"{name} have the shape {shape}; give [images, channels, height, width] with 1 or 3 channels")
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise DataError(f"{name} are of type {images.dtype}; give uint8, or floating-point numbers in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{name} have pixels from {low:.4g} to {high:.4g}; floating-point pixels must lie in [0, 1]: undo their "
            "normalisation, and let the model normalise"
        )
    return (images * 255).round().to(torch.uint8).contiguous()


def _labels(labels: Any, count: int, name: str) -> Int[Tensor, "images"]:
    try:
        found = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"labels of {name} are not numbers ({reason}); give one integer per image") from None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DataError(f"labels of {name} are of type {found.dtype}; give integers")
    if found.shape != (count,):
        raise DataError(
            f"{name} have {count} images and labels of shape {tuple(found.shape)}; give one label per image"
        )
    return found.to(torch.int64)


def _read_all(dataset: Any, name: str) -> ImageSet:
    try:
        count = len(dataset)
    except TypeError:
        count = 0
    if not count or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{name} of type {type(dataset).__name__} have no items that can be counted and indexed; give a tensor, an "
            "array, or a torch Dataset of pairs (image, label)"
        )
    pixels, labels = [], []
    for index in range(count):
        item = dataset[index]
        if not isinstance(item, Sequence) or isinstance(item, str | bytes) or len(item) != 2:
            raise DataError(f"item {index} of {name} is not a pair (image, label); give a data set of such pairs")
        image = item[0] if isinstance(item[0], Tensor | np.ndarray) else np.asarray(item[0])
        pixels.append(_pixels(image[None], f"item {index} of {name}")[0])
        if pixels[-1].shape != pixels[0].shape:
            raise DataError(
                f"item {index} of {name} has the shape {tuple(pixels[-1].shape)}, the first has "
                f"{tuple(pixels[0].shape)}; resize all images to one size"
            )
        labels.append(item[1])
    return InMemoryImages(name, torch.stack(pixels), _labels(labels, count, name))
