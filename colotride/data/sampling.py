"""SPC-2 batches: two images of a class make an anchor-positive pair."""

import torch
from jaxtyping import Int
from torch import Tensor

from colotride.errors import DataError
from colotride.randomness import generator


def pair_batches(
    labels: Int[Tensor, "images"], pairs_per_batch: int, pairs_per_epoch: int | None, seed: int, epoch: int
) -> Int[Tensor, "steps pairs two"]:
    """The batches of one epoch, as indices of anchors and positives; they depend on seed and epoch alone.

    In one pass every image is used once; where a class has an odd number of images, the one that is left over is
    paired with a random mate. Further passes follow when the epoch asks for more pairs. An incomplete last batch is
    dropped, unless it is the only one.

    Args:
        labels: class of every image; every class has at least two.
        pairs_per_batch: B; a batch has 2 B images.
        pairs_per_epoch: how many pairs; None for one pass.
        seed: the run's.
        epoch: counted from 0.

    Returns:
        int64 indices; `[:, :, 0]` are the anchors, `[:, :, 1]` their positives. Every batch holds two classes or more.

    Raises:
        DataError: a batch of two classes cannot be made.
    """
    passes = [_one_pass(labels, generator(seed, "sampling", epoch, 0))]
    while pairs_per_epoch is not None and sum(map(len, passes)) < pairs_per_epoch:
        passes.append(_one_pass(labels, generator(seed, "sampling", epoch, len(passes))))
    pairs = torch.cat(passes)[:pairs_per_epoch]
    size = min(pairs_per_batch, len(pairs))
    batches = pairs[: len(pairs) // size * size].view(-1, size, 2)
    _mix_classes(batches, labels)
    return batches


def _one_pass(labels: Int[Tensor, "images"], random: torch.Generator) -> Int[Tensor, "pairs two"]:
    order = torch.randperm(len(labels), generator=random)
    by_class = order[labels[order].argsort(stable=True)]
    _, counts = labels.unique(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    sizes = counts.repeat_interleave(counts)
    here = torch.arange(len(labels))
    position = here - starts
    # The last image of an odd class has no neighbour; its mate is any of the others.
    left_over = position == sizes - 1
    mate = starts + (torch.rand(len(labels), generator=random) * (sizes - 1)).long()
    partner = torch.where(left_over, mate, here + 1)
    first = position % 2 == 0
    pairs = torch.stack([by_class[here[first]], by_class[partner[first]]], dim=1)
    return pairs[torch.randperm(len(pairs), generator=random)]


def _mix_classes(batches: Int[Tensor, "steps pairs two"], labels: Int[Tensor, "images"]) -> None:
    """Swap a pair into every batch that holds one class only, in place; such batches are rare."""
    classes = labels[batches[:, :, 0]]
    for step in (classes == classes[:, :1]).all(dim=1).nonzero().flatten().tolist():
        own = classes[step, 0]
        # A batch that gets a pair of the own class in exchange may give a foreign one away and still hold two
        # classes when another foreign pair remains in it.
        foreign = classes != own
        usable = foreign & (foreign.sum(dim=1, keepdim=True) > 1)
        if not bool(usable.any()):
            raise DataError(
                f"a batch of {batches.shape[1]} pairs holds only class {int(own)}: no anchor has a negative; "
                "use more pairs per batch, more pairs per epoch or more balanced classes"
            )
        other, pair = usable.nonzero()[0].tolist()
        foreign_pair = batches[other, pair].clone()
        batches[other, pair] = batches[step, 0]
        batches[step, 0] = foreign_pair
        classes[other, pair], classes[step, 0] = own, labels[foreign_pair[0]]
