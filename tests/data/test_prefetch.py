import threading

import pytest
import torch

from colotride.data.base import InMemoryImages
from colotride.data.prefetch import prefetched
from colotride.errors import DataError

CPU = torch.device("cpu")


class Slow(InMemoryImages):
    """Tells when a batch is being read."""

    def __init__(self, count):
        super().__init__(
            "slow", torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(count, dtype=torch.int64)
        )
        self.reading = {index: threading.Event() for index in range(count)}

    def pixels(self, indices):
        if int(indices[0]) == 6:
            raise DataError("image 6 cannot be decoded")
        self.reading[int(indices[0])].set()
        return super().pixels(indices)


def test_batches_come_in_order():
    batches = [torch.tensor([4, 2]), torch.tensor([0, 1]), torch.tensor([3, 3])]
    got = [pixels.flatten().tolist() for pixels in prefetched(Slow(5), batches, CPU)]
    assert got == [[4, 2], [0, 1], [3, 3]]
    assert list(prefetched(Slow(5), [], CPU)) == []


def test_the_next_batch_is_read_while_this_one_is_in_use_and_no_further_one():
    images = Slow(6)
    pixels = prefetched(images, [torch.tensor([index]) for index in range(5)], CPU)
    next(pixels)
    assert images.reading[1].wait(10)
    assert not images.reading[2].wait(0.1)
    pixels.close()


def test_an_image_that_cannot_be_read_is_told_when_its_batch_is_due():
    pixels = prefetched(Slow(8), [torch.tensor([5]), torch.tensor([6])], CPU)
    assert next(pixels).flatten().tolist() == [5]
    with pytest.raises(DataError, match="image 6"):
        next(pixels)
