"""One training step of every kind: ours, the textbook's, and the passes through the network that it cannot avoid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from colotride.defenses import Batch, CollapsenessSettings, Defense, DefenseContext, StepInfo, build_defense
from colotride.defenses.act import ActSettings
from colotride.defenses.colo_tride import ColoTrideSettings
from colotride.defenses.hardness_manipulation import HardnessManipulationSettings
from colotride.defenses.natural import NaturalSettings
from colotride.defenses.triplets import DefenseSettings
from colotride.models import TWO_CONVOLUTIONS, EmbeddingModel, ModelSettings, build_model
from colotride.pgd import frozen
from colotride.pgd_settings import Budget, PGDSettings
from colotride.training.optimizer import TrainingSettings, build_optimizer
from scripts.benchmarks.textbook import MARGIN, MINERS, Kind, PlainModel, TextbookStep
from scripts.benchmarks.timing import Measured, ratio, side_by_side

SETTINGS: dict[Kind, DefenseSettings] = {
    "NT": NaturalSettings(),
    "ACT": ActSettings(),
    "HM": HardnessManipulationSettings(),
    "CAP": ColoTrideSettings(phases="candidates"),
    "ANP": ColoTrideSettings(phases="anchor"),
}

UNITS: dict[Kind, tuple[int, int, int]] = {
    "NT": (0, 0, 2),
    "ACT": (2, 2, 3),
    "HM": (0, 3, 5),
    "CAP": (2, 2, 3),
    "ANP": (0, 1, 3),
}
"""Parts of a triplet batch that an algorithm must pass through the network: without gradient, at every PGD step
(forward and back to the input), and in training (forward and back to the weights). The pass that mines is one of
training wherever whole clean parts are trained on."""

CYCLE = "CAP + ANP"


@dataclass(frozen=True)
class BenchmarkCase:
    """What is measured."""

    architecture: str
    image_size: int
    triplets: int
    steps: int

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.architecture} {self.image_size} px, {self.triplets} triplets, {self.steps} steps"


@dataclass(frozen=True)
class StepRow:
    """One line of the table."""

    case: str
    step: str
    seconds: float
    images_per_second: float
    """Images of the batch (three per triplet) per second."""
    peak_mib: float
    teraflops: float
    """Arithmetic of our step per second."""
    of_peak: float
    """Its share of what the device reaches in one large matrix product, in the same precision."""
    textbook: float
    """How many times faster than the textbook's structure."""
    limit: float
    """Seconds of the unavoidable passes, each asked for by the host, over our seconds: 1 is the limit, unless steps are
    recorded as CUDA graphs."""
    path: str
    """Which path the network takes inside a perturbation: BatchNorm folded, or plain and why."""


@dataclass(frozen=True)
class StepBenchmark:
    """A network with its batch, and one step of every kind in both forms."""

    model: EmbeddingModel
    plain: PlainModel
    anchor: Tensor
    positive: Tensor
    labels: Tensor
    budget: Budget

    def ours(self, kind: Kind) -> Callable[[], None]:
        """Our step: defense, backward, optimiser."""
        pgd = PGDSettings(
            epsilon=self.budget.epsilon, step_size=self.budget.step_size, steps=self.budget.steps, ramp="constant"
        )
        context = DefenseContext(pgd, MARGIN, MINERS[kind], CollapsenessSettings())
        defense = build_defense(SETTINGS[kind], context)
        # Only HM has a state: a destination that its triplets have not reached after the last step.
        defense.load_state_dict({"previous_loss": torch.zeros(())})
        state = defense.state_dict()
        optimizer = build_optimizer(self.model, TrainingSettings())
        return lambda: self._step(defense, state, optimizer)

    def textbook(self, kind: Kind) -> Callable[[], None]:
        """The textbook's step."""
        step = TextbookStep(kind, self.plain, self.budget)
        return lambda: step(self.anchor, self.positive, self.labels)

    def unavoidable(self, part: Literal["embed", "perturb", "train", "update"], parts: int) -> Callable[[], None]:
        """One isolated pass of `parts` thirds of the triplet batch, or one update of the weights."""
        model, images = self.model, torch.cat([self.anchor, self.positive, self.anchor] * 2)[: parts * len(self.labels)]
        optimizer = build_optimizer(model, TrainingSettings())

        def embed() -> None:
            with frozen(model) as still, torch.no_grad():
                still(images)

        def perturb() -> None:
            with frozen(model) as still, torch.enable_grad():
                moving = images.detach().requires_grad_(True)
                torch.autograd.grad(still(moving).sum(), moving)

        def train() -> None:
            model.train()
            optimizer.zero_grad(set_to_none=True)
            model(images)[:, 0].sum().backward()

        def update() -> None:
            optimizer.step()

        return {"embed": embed, "perturb": perturb, "train": train, "update": update}[part]

    def _step(self, defense: Defense, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        self.model.train()
        defense.load_state_dict(state)
        batch = Batch(self.anchor, self.positive, self.labels)
        loss, _ = defense.batch_loss(self.model, batch, StepInfo(0, 1, 0), torch.Generator().manual_seed(0))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


AS_IT_IS = ModelSettings(weights="none")
"""Our network in float32, neither compiled nor recorded."""


def step_benchmark(case: BenchmarkCase, device: torch.device, ours: ModelSettings = AS_IT_IS) -> StepBenchmark:
    """Random weights and images on which no attack saturates: positives lie near their anchors, and steps are tiny.

    Args:
        case: network, image size, batch and PGD steps.
        device: where.
        ours: how our network computes; the architecture is the case's.
    """
    small = case.architecture == TWO_CONVOLUTIONS
    settings = ours.model_copy(update={"architecture": case.architecture})
    channels = 1 if small else 3
    model = build_model(settings, channels=channels, image_size=case.image_size, seed=0).to(device)
    random = torch.Generator().manual_seed(0)
    anchor = 0.4 + 0.2 * torch.rand(case.triplets, channels, case.image_size, case.image_size, generator=random)
    positive = anchor + 0.005 * torch.rand(anchor.shape, generator=random)
    labels = torch.arange(case.triplets) % max(2, case.triplets // 4)
    budget = Budget(8 / 255, 0.01 / 255, case.steps)
    layout = torch.channels_last
    return StepBenchmark(
        model,
        PlainModel(model),
        anchor.to(device).contiguous(memory_format=layout),
        positive.to(device).contiguous(memory_format=layout),
        labels,
        budget,
    )


def measure_steps(
    case: BenchmarkCase,
    rounds: int,
    device: torch.device,
    network: ModelSettings = AS_IT_IS,
    *,
    on_run: Callable[[str], None] | None = None,
) -> list[StepRow]:
    """Measure every kind of step on one network, and the cycle of CAP and ANP.

    Args:
        case: network, image size, batch and PGD steps.
        rounds: measured runs of each.
        device: where.
        network: how our network computes; the textbook is float32.
        on_run: called with the name of what is about to run.
    """
    one = step_benchmark(case, device, network)
    path = one.model.inference_path()
    works: dict[str, Callable[[], None]] = {}
    for kind in UNITS:
        works[f"ours {kind}"], works[f"textbook {kind}"] = one.ours(kind), one.textbook(kind)
    works |= {f"embed {parts}": one.unavoidable("embed", parts) for parts in (2,)}
    works |= {f"perturb {parts}": one.unavoidable("perturb", parts) for parts in (1, 2, 3)}
    works |= {f"train {parts}": one.unavoidable("train", parts) for parts in (2, 3, 5)}
    works["update"] = one.unavoidable("update", 0)
    works["matrix"], product = matrix_product(device, network.precision)
    seen = side_by_side(works, rounds, device, on_run)
    peak = product / seen["matrix"].best
    rows = []
    for kind in UNITS:
        unavoidable = [_least(kind, case.steps, seen)]
        ours, textbook = [seen[f"ours {kind}"]], [seen[f"textbook {kind}"]]
        rows.append(_row(case, kind, ours, textbook, unavoidable, _flops(one, [kind]), peak, path))
    both: tuple[Kind, Kind] = ("CAP", "ANP")
    ours = [seen[f"ours {kind}"] for kind in both]
    textbook = [seen[f"textbook {kind}"] for kind in both]
    unavoidable = [_least(kind, case.steps, seen) for kind in both]
    rows.append(_row(case, CYCLE, ours, textbook, unavoidable, _flops(one, both), peak, path))
    return rows


def matrix_product(device: torch.device, precision: Literal["float32", "bfloat16"]) -> tuple[Callable[[], None], float]:
    """One large matrix product, and its floating-point operations."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.rand(side, side, device=device, dtype=getattr(torch, precision))
    out = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, a, out=out)

    return product, 2.0 * side**3


def _least(kind: Kind, steps: int, seen: dict[str, Measured]) -> Measured:
    """The unavoidable passes, each in its fastest round."""
    embed, perturb, train = UNITS[kind]
    parts = [seen[f"train {train}"].best, seen["update"].best]
    parts += [seen[f"embed {embed}"].best] if embed else []
    parts += [steps * seen[f"perturb {perturb}"].best] if perturb else []
    return Measured([sum(parts)])


def _row(
    case: BenchmarkCase,
    step: str,
    ours: list[Measured],
    textbook: list[Measured],
    least: list[Measured],
    flops: int,
    peak: float,
    path: str,
) -> StepRow:
    whole = _sum(ours)
    images = 3 * case.triplets * len(ours)
    return StepRow(
        case=case.name,
        step=step,
        seconds=whole.best,
        images_per_second=images / whole.best,
        peak_mib=max(one.peak_bytes for one in ours) / 2**20,
        teraflops=flops / whole.best / 1e12,
        of_peak=flops / whole.best / peak,
        textbook=ratio(_sum(textbook), whole),
        limit=ratio(_sum(least), whole),
        path=path,
    )


def _sum(parts: list[Measured]) -> Measured:
    return Measured([sum(part.best for part in parts)])


def _flops(one: StepBenchmark, kinds: tuple[Kind, ...] | list[Kind]) -> int:
    # What a graph replays is not seen by the counter.
    recorder, one.model.recorder = one.model.recorder, None
    with FlopCounterMode(display=False) as counter:
        for kind in kinds:
            one.ours(kind)()
    one.model.recorder = recorder
    return counter.get_total_flops()
