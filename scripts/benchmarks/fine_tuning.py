"""A training step of a large encoder by how much of it is trained: time, memory, and what the optimiser keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from colotride.models import ModelSettings, build_model
from scripts.benchmarks.step import BenchmarkCase, StepBenchmark, step_benchmark
from scripts.benchmarks.timing import side_by_side

ENCODER = "timm:vit_small_patch16_224"

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "everything": {},
    "last 4 blocks": {"trainable_blocks": 4},
    "last block": {"trainable_blocks": 1},
    "embedding layer": {"trainable_blocks": 0},
    "LoRA, rank 8": {"lora_rank": 8},
    "LoRA, rank 8, last 4 blocks": {"lora_rank": 8, "trainable_blocks": 4},
}
"""Settings of `model` by what they train."""

ADAM_BYTES = 8
"""Of each trained weight, which Adam keeps two numbers of."""


@dataclass(frozen=True)
class FineTuningRow:
    """One way to train."""

    trains: str
    weights: int
    """How many are trained."""
    seconds: float
    """Of a cycle: one step with CAP and one with ANP."""
    peak_mib: float
    """Largest memory of the cycle beyond the network and the batch."""
    optimizer_mib: float
    """What Adam keeps."""


def measure_fine_tuning(
    case: BenchmarkCase, rounds: int, device: torch.device, on_run: Callable[[str], None] | None = None
) -> list[FineTuningRow]:
    """Measure a cycle of COLO-TRIDE for every way to train, with random weights.

    Args:
        case: network, image size, batch and PGD steps.
        rounds: measured runs of each.
        device: where.
        on_run: called with the name of what is about to run.
    """
    made: dict[str, StepBenchmark] = {name: _benchmark(case, device, settings) for name, settings in VARIANTS.items()}
    works = {name: _cycle(one) for name, one in made.items()}
    measured = side_by_side(works, rounds, device, on_run)
    rows = []
    for name, one in made.items():
        weights = sum(value.numel() for value in one.model.parameters() if value.requires_grad)
        rows.append(
            FineTuningRow(
                name,
                weights,
                measured[name].best,
                measured[name].peak_bytes / 2**20,
                weights * ADAM_BYTES / 2**20,
            )
        )
    return rows


def _benchmark(case: BenchmarkCase, device: torch.device, settings: Mapping[str, Any]) -> StepBenchmark:
    base = step_benchmark(BenchmarkCase("two-convolutions", case.image_size, case.triplets, case.steps), device)
    chosen = ModelSettings(architecture=case.architecture, weights="none", **settings)
    model = build_model(chosen, channels=3, image_size=case.image_size, seed=0).to(device)
    anchor, positive = (one.expand(-1, 3, -1, -1).contiguous() for one in (base.anchor, base.positive))
    return StepBenchmark(model, base.plain, anchor, positive, base.labels, base.budget)


def _cycle(one: StepBenchmark) -> Callable[[], None]:
    candidates, anchor = one.ours("CAP"), one.ours("ANP")

    def cycle() -> None:
        candidates()
        anchor()

    return cycle
