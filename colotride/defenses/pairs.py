"""Anchor-positive pairs from any batch of images with labels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from colotride.defenses.triplets import Batch
from colotride.errors import DataError


def paired_batch(images: Float[Tensor, "images channels height width"], labels: Int[Tensor, "labels"]) -> Batch:
    """Pair the images of each class in the order in which they come: first with second, third with fourth.

    Args:
        images: pixels in [0, 1].
        labels: class of each image. The last one of an odd number of images is left out.

    Raises:
        DataError: pixels outside [0, 1] or NaN, another number of labels, or a class with a single image.
    """
    if len(labels) != len(images):
        raise DataError(f"a batch of {len(images)} images has {len(labels)} labels; give one label per image")
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"pixels lie in {low:.3g} to {high:.3g}, not in [0, 1]; divide 8-bit pixels by 255, and move the "
            "normalisation by mean and standard deviation into the model"
        )
    labels = labels.detach().cpu()
    order = labels.argsort(stable=True)
    classes, counts = labels.unique(return_counts=True)
    if int(counts.min()) < 2:
        raise DataError(
            f"class {int(classes[counts < 2][0])} has a single image in this batch: it has no positive; use a sampler "
            "that draws two or more images of each class"
        )
    position = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    kept = order[position < (counts // 2 * 2).repeat_interleave(counts)]
    anchors, positives = kept[0::2], kept[1::2]
    return Batch(images[anchors], images[positives], labels[anchors])
