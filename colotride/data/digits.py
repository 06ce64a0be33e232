"""scikit-learn's handwritten digits: real 8-pixel images that need no download."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from colotride.data.base import ImageSet, InMemoryImages, Source
from colotride.registry import register_dataset

TRAIN_CLASSES = range(6)
TEST_CLASSES = range(6, 10)


@register_dataset("digits", bundled=True, fixed_size=True)
def digits(root: Path, stored_size: int) -> Source:
    """The digits as a zero-shot set: 0-5 train (1,083 images), 6-9 test (714 images), 8 x 8 pixels, one channel."""
    return Source(
        train=partial(_part, "digits/train", TRAIN_CLASSES),
        test=partial(_part, "digits/test", TEST_CLASSES),
        zero_shot=True,
    )


def _part(name: str, classes: range) -> ImageSet:
    # Imported here, because it takes a second that other data sets need not spend.
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = np.isin(data.target, list(classes))
    # Grey values run from 0 to 16.
    pixels = np.rint(data.images[chosen] * (255 / 16)).astype(np.uint8)
    names = {digit: f"digit {digit}" for digit in classes}
    return InMemoryImages(name, torch.from_numpy(pixels)[:, None], torch.from_numpy(data.target[chosen]), names)
