"""How long a training step takes on many workers, from its time on one and from what the network between them can do.

python -m scripts.benchmarks.scaling_model
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import distributed as dist

from colotride.distributed.shards import ProcessGroup
from colotride.markdown import table

FLOAT = 4
"""Bytes of a number that is exchanged."""


@dataclass(frozen=True)
class Fabric:
    """What connects the workers."""

    name: str
    bandwidth: float
    """Bytes per second that a worker sends while it receives as many, in a large exchange."""
    latency: float
    """Seconds of the smallest exchange between two workers; between n it takes log2(n) times as long."""


RESNET_18 = 11_439_168
"""Its trained weights, with an embedding layer of 512."""

FABRICS = (
    Fabric("NVLink (300 GB/s, 10 µs)", 300e9, 10e-6),
    Fabric("InfiniBand (40 GB/s a GPU, 20 µs)", 40e9, 20e-6),
    Fabric("Ethernet (1.5 GB/s a GPU, 50 µs)", 1.5e9, 50e-6),
)
"""Stated, not measured: what NCCL's own tests commonly reach on such hardware."""


@dataclass(frozen=True)
class Step:
    """A training step on one worker: what is divided or exchanged when there are more."""

    seconds: float
    """On one worker, with as many pairs as each worker has."""
    pairs: int
    """Of one worker."""
    dim: int
    """Of the embedding."""
    weights: int
    """That are trained."""
    pgd_steps: int
    phase: Literal["candidates", "anchor"]

    @property
    def distances(self) -> int:
        """Kinds of distances that a perturbation's objective needs of the whole batch: d(A,P) and d(A,N), in ANP the shift too."""
        return 2 if self.phase == "candidates" else 3


@dataclass(frozen=True)
class Exchange:
    """Everything that the workers of a group tell each other in one step."""

    gathers: int
    """Exchanges in which each contributes a part and all get the whole."""
    gathered: int
    """Bytes of one worker's parts."""
    sums: int
    """Exchanges in which numbers are added up over the workers; each of both kinds waits for the slowest worker."""
    summed: int
    """Bytes that are added up."""


def exchange_of(step: Step, workers: int) -> Exchange:
    """What a step of COLO-TRIDE exchanges on GPUs; a CPU also asks at every PGD step whether anything still moves.

    Embeddings of the anchors and of the positives, to mine; distances at every PGD step; those of the clean batch, of the
    losses and of the diagnostics of the perturbed one; whether anybody was asked to stop; the gradient. ANP trains on the
    pass that mined, so that the gradient of the whole batch's embeddings is added up as well.
    """
    row, anchor = FLOAT * step.pairs, step.phase == "anchor"
    embeddings = 2 * row * step.dim
    perturbing = step.pgd_steps * step.distances
    clean, loss, hardness, top_ranked = 2, 2, 2, 2 if anchor else 0
    # The shift is one exchange, in CAP of the positives' and the negatives' distances together.
    moved = 1 if anchor else 2
    return Exchange(
        gathers=2 + perturbing + clean + loss + hardness + top_ranked + 1,
        gathered=embeddings + (perturbing + clean + loss + hardness + top_ranked + moved) * row,
        sums=2 + (2 if anchor else 0),
        summed=FLOAT * (step.weights + 1) + (workers * embeddings if anchor else 0),
    )


def step_seconds(step: Step, workers: int, fabric: Fabric) -> float:
    """Seconds of a step on some workers, each with as many pairs as the one had.

    Rings: a worker passes on n - 1 parts of what is gathered, and of what is summed twice n - 1 of its n parts.
    """
    if workers == 1:
        return step.seconds
    exchange = exchange_of(step, workers)
    waits = (exchange.gathers + exchange.sums) * math.log2(workers) * fabric.latency
    sent = (workers - 1) * exchange.gathered + 2 * (workers - 1) / workers * exchange.summed
    return step.seconds + waits + sent / fabric.bandwidth


def efficiency(steps: Sequence[Step], workers: int, fabric: Fabric) -> float:
    """Of weak scaling, in (0, 1]: the time of some steps on one worker over theirs on several."""
    return sum(one.seconds for one in steps) / sum(step_seconds(one, workers, fabric) for one in steps)


def cycle(seconds: float, pairs: int, pgd_steps: int) -> list[Step]:
    """A CAP and an ANP step of a ResNet-18 with an embedding layer of 512, which take so many seconds on the average."""
    return [Step(seconds, pairs, 512, RESNET_18, pgd_steps, phase) for phase in ("candidates", "anchor")]


def weak_scaling(seconds: float = 0.09, pairs: int = 56, pgd_steps: int = 16) -> str:
    """A table of the efficiencies with 1, 8 and 64 workers on the stated fabrics.

    Args:
        seconds: of a step on one worker.
        pairs: of one worker.
        pgd_steps: of a perturbation.
    """
    steps = cycle(seconds, pairs, pgd_steps)
    rows = [
        [str(count), *(f"{100 * efficiency(steps, count, fabric):.0f} %" for fabric in FABRICS)] for count in (1, 8, 64)
    ]
    return table(["workers", *(fabric.name for fabric in FABRICS)], rows)


def measured_fabric(group: ProcessGroup, numbers: int = 11_000_000, rounds: int = 50) -> Fabric:
    """What connects the processes of a group, measured by exchanges of one number and of many.

    Args:
        group: of at least two processes.
        numbers: that are added up to measure the bandwidth.
        rounds: exchanges of one number.
    """
    small, large = torch.zeros(1), torch.zeros(numbers)
    gathered = torch.zeros(group.size)

    def seconds(exchange: Callable[[], Any], count: int) -> float:
        exchange()
        began = time.perf_counter()
        for _ in range(count):
            exchange()
        return (time.perf_counter() - began) / count

    latency = seconds(lambda: dist.all_gather_into_tensor(gathered, small), rounds) / math.log2(group.size)
    summing = seconds(lambda: dist.all_reduce(large), 3)
    sent = 2 * (group.size - 1) / group.size * FLOAT * numbers
    return Fabric("these processes", sent / summing, latency)


if __name__ == "__main__":
    print(weak_scaling())
