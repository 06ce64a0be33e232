"""How many trials share a GPU, or a machine's memory: one trial's peak is measured, instead of guessed."""

import math
import resource
import sys
from dataclasses import dataclass

import ray
import torch

from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.devices import device_of
from colotride.distributed.ray_cluster import result_of
from colotride.errors import SearchError
from colotride.pgd import MIN_RECORDED_STEPS
from colotride.training.trainer import Trainer
from colotride.tune.parameters import Choice, Space, Values

MARGIN = 1.15
"""Room beside the measured peak: the allocator of another configuration breaks its memory into other pieces."""

BATCH_SIZE = "data.pairs_per_batch"
"""The setting on which a trial's memory depends most; a space that varies it is measured at its largest value."""


@dataclass(frozen=True)
class Peak:
    """What one trial used at most, in bytes."""

    used: int
    total: int
    """Of the GPU; 0 where the memory is the machine's."""
    beside: int = 0
    """What of it the allocator of a GPU does not count: the process's context and its libraries."""


def largest(space: Space, base: RunConfig) -> RunConfig:
    """The configuration of a space that needs the most memory: the base, with the largest batch."""
    values: Values = {
        one.name: max(one.values) if isinstance(one, Choice) else one.high
        for one in space.parameters
        if one.path == BATCH_SIZE
    }
    return space.configure(base, values)


def measured_peak(config: RunConfig, device: str) -> Peak:
    """Train and validate one trial's first two batches in a process of its own, and see what they need.

    One batch is perturbed by CAP and one by ANP. PGD steps follow one another in the same memory: one is as good as
    many, unless they are recorded as CUDA graphs.

    Args:
        config: of the trial, see `largest`.
        device: cpu, or a GPU, which the process has alone.

    Raises:
        SearchError: the trial does not fit into the memory even alone.
        ColoTrideError: whatever the trainer raises.
    """
    gpus = 0 if device == "cpu" else 1
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=0)(_peak)
    try:
        return result_of(task.remote(config, device))
    except torch.OutOfMemoryError as error:
        raise SearchError(
            f"one trial does not fit into the memory of its GPU ({str(error).splitlines()[0]}); "
            "give smaller batches with --run.data.pairs-per-batch"
        ) from None


def share_of_gpu(peak: Peak) -> float:
    """The share of a GPU that a trial gets: its peak and some room, such that whole trials fill the GPU.

    Raises:
        SearchError: the peak is that of a machine without a GPU.
    """
    if peak.total == 0:
        raise SearchError("--gpus-per-trial auto found no GPU to measure; leave it out")
    return 1 / max(1, math.floor(peak.total / (MARGIN * peak.used)))


def memory_of(peak: Peak) -> int:
    """Bytes of the machine's memory that a trial gets: its peak and some room."""
    return math.ceil(MARGIN * peak.used)


def _peak(config: RunConfig, device: str) -> Peak:
    # Tells what it needed, not what a part of it did: the process has done nothing before.
    small = config.with_values(
        {
            "training.epochs": 1,
            "data.pairs_per_epoch": 2 * config.data.pairs_per_batch,
            "pgd.steps": MIN_RECORDED_STEPS if config.model.cuda_graphs else 1,
            "validation.steps": 1,
            "validation.first_share": 1.0,
        }
    )
    splits = load_splits(small.data)
    place = device_of(device)
    if place.type != "cuda":
        Trainer(small, splits.train, splits.validation, device=place).run()
        # Linux counts it in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return Peak(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0)
    free, total = torch.cuda.mem_get_info(place)
    Trainer(small, splits.train, splits.validation, device=place).run()
    reserved, left = torch.cuda.memory_stats(place)["reserved_bytes.all.peak"], torch.cuda.mem_get_info(place)[0]
    # The context of the process and of its libraries lies beside what the allocator counts.
    context = max(0, free - left - torch.cuda.memory_reserved(place)) + (total - free)
    return Peak(int(reserved + context), total, int(context))
