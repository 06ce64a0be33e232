"""Read the next batch while the device works on this one."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from colotride.data.base import ImageSet


def prefetched(
    images: ImageSet, batches: Iterable[Int[Tensor, "batch"]], device: torch.device
) -> Generator[UInt8[Tensor, "batch channels height width"]]:
    """The pixels of each batch on the device, each read in a thread while the previous one is in use.

    For a GPU they pass through pinned memory, so that the copy runs beside the computation.

    Args:
        images: where to read.
        batches: indices of each batch's images.
        device: where the pixels go.

    Raises:
        DataError: an image that cannot be read, when its batch is asked for.
    """

    def read(indices: Tensor) -> Tensor:
        pixels = images.pixels(indices)
        return pixels.pin_memory() if device.type == "cuda" else pixels

    waiting = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
        pending = [reader.submit(read, indices) for indices in _next(waiting)]
        while pending:
            pixels = pending.pop().result()
            pending = [reader.submit(read, indices) for indices in _next(waiting)]
            yield pixels.to(device, non_blocking=True)


def _next(batches: Iterator[Tensor]) -> list[Tensor]:
    return [batch for batch in [next(batches, None)] if batch is not None]
