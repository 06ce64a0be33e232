"""Time and memory of equivalent functions, measured alternately in one process."""

import ctypes
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

Work = Callable[[], object]


@dataclass
class Measured:
    """All rounds of one function."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    """Largest memory in use beyond what was in use before: of the process, or of the GPU."""

    @property
    def best(self) -> float:
        """Seconds of the fastest round: the others were slowed down by something else on the machine."""
        return min(self.seconds)


def side_by_side(
    works: Mapping[str, Work],
    rounds: int,
    device: torch.device,
    on_run: Callable[[str], None] | None = None,
    *,
    warm: bool = True,
) -> dict[str, Measured]:
    """Run all functions alternately, so that a change of the machine's load meets all of them.

    Args:
        works: what to run, by name.
        rounds: measured runs of each, at least 1.
        device: where they run; a GPU is waited for before the clock is read.
        on_run: called with the name before each run.
        warm: whether to run everything once before, unmeasured.
    """
    measured = {name: Measured() for name in works}
    for number in range(0 if warm else 1, rounds + 1):
        for name, work in works.items():
            if on_run:
                on_run(name)
            # Memory in the first round only: memory that was given back must be asked for again, which takes time.
            first = number == (0 if warm else 1)
            before = _reset_peak(device) if first else 0
            started = time.perf_counter()
            work()
            _wait(device)
            if number:
                measured[name].seconds.append(time.perf_counter() - started)
            if first:
                measured[name].peak_bytes = _peak(device) - before
    return measured


def ratio(slow: Measured, fast: Measured) -> float:
    """How many times faster `fast` is, each in its fastest round."""
    return slow.best / fast.best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # Linux gives freed memory back and forgets the process's peak when asked so; elsewhere no peak is reported.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
