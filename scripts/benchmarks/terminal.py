"""What all benchmarks say: what is measured now, and on which machine."""

import platform
from pathlib import Path

import torch
from rich.status import Status


def machine(device: torch.device) -> str:
    """What a figure was measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def show(status: Status, case: str, name: str) -> None:
    """Say in a status line what is measured now."""
    status.update(f"{case}: {name}")
