"""Where the time of a training step goes, by kind of operation."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("convolution and linear layers, forward", ("mkldnn_convolution", "cudnn_convolution", "addmm", "thnn_conv")),
    ("convolutions, backward", ("convolution_backward",)),
    ("linear layers, backward; distances", ("aten::mm", "aten::bmm", "vector_norm", "cdist")),
    ("ReLU", ("threshold_backward", "clamp_min_", "relu")),
    ("pooling", ("pool",)),
    ("BatchNorm that is not folded (training passes)", ("batch_norm",)),
    ("optimiser", ("adam",)),
)


@dataclass(frozen=True)
class ProfileRow:
    """One kind of operation."""

    operations: str
    milliseconds: float
    share: float
    """Of all operations, 0..1."""
    calls: int


def profile_of(work: Callable[[], None], device: torch.device, repeats: int = 3) -> list[ProfileRow]:
    """Profile something after warming it up; times are per repeat, of the device where there is one.

    Returns:
        One row per kind that took time, the longest first; operations of no kind come last.
    """
    # The profiler would otherwise report on standard error that it starts, stops, and found no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    work()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as seen:
        for _ in range(repeats):
            work()
    sums: dict[str, tuple[float, int]] = {}
    for event in seen.key_averages():
        time = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        kind = next((name for name, parts in KINDS if any(part in event.key for part in parts)), "everything else")
        before = sums.get(kind, (0.0, 0))
        sums[kind] = (before[0] + time, before[1] + event.count)
    whole = sum(time for time, _ in sums.values())
    rows = [
        ProfileRow(kind, time / 1000 / repeats, time / whole, calls // repeats) for kind, (time, calls) in sums.items()
    ]
    return sorted(
        (row for row in rows if row.share > 0), key=lambda row: (row.operations == "everything else", -row.share)
    )
