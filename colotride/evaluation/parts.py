"""An evaluation cut into parts that can be done anywhere, in any order, and be kept.

A part is some whole batches of queries under one attack. Its values depend on nothing else, so that the same numbers
come out whoever does which part.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from colotride.data.augmentation import evaluation_view
from colotride.data.base import ImageSet
from colotride.distributed.shards import ProcessGroup
from colotride.evaluation.attacks import Attack, AttackBatch, attacks
from colotride.evaluation.gallery import Gallery, in_batches
from colotride.evaluation.settings import EvaluationSettings
from colotride.io import write_atomically
from colotride.pgd import Budget
from colotride.randomness import generator

BATCHES_PER_PART = 8


@dataclass(frozen=True)
class Part:
    """The queries from `start` to `stop` under one attack."""

    attack: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.attack}-{self.start:07d}-{self.stop:07d}"


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first attack: the gallery, who is attacked and with which targets."""

    gallery: Gallery
    queries: Int[Tensor, "queries"]
    targets: dict[str, Int[Tensor, "queries"]]
    """By attack, the place of each query's target in the gallery."""
    settings: EvaluationSettings
    image_size: int

    def parts(self) -> list[Part]:
        """Every part, attack by attack."""
        size, count = self.settings.batch_size * BATCHES_PER_PART, len(self.queries)
        return [Part(name, start, min(count, start + size)) for name in self.targets for start in range(0, count, size)]

    def digest(self) -> str:
        """Digest of everything that decides the values of the parts, the model included through its embeddings."""
        summary = hashlib.sha256(self.settings.model_dump_json(exclude={"bootstrap"}).encode())
        for values in (self.gallery.embeddings, self.gallery.labels, self.queries, *self.targets.values()):
            summary.update(values.cpu().contiguous().numpy().tobytes())
        return summary.hexdigest()


@dataclass(frozen=True)
class Values:
    """What a part found: one value per query and attack number, on the CPU."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]


RunParts = Callable[[Plan, Sequence[Part]], Iterable[tuple[Part, Values]]]
"""Does parts, in any order, and hands each over as it ends."""


def draw_queries(images: int, budget: int | None, seed: int) -> Int[Tensor, "queries"]:
    """Which images are attacked: all of them, or as many as the budget says, drawn without repetition, in order."""
    if budget is None or budget >= images:
        return torch.arange(images)
    return torch.randperm(images, generator=generator(seed, "evaluation", "queries"))[:budget].sort().values


def make_plan(gallery: Gallery, settings: EvaluationSettings, image_size: int, seed: int) -> Plan:
    """Draw queries and targets from the seed alone, so that two models with one seed face the same queries."""
    queries = draw_queries(len(gallery), settings.queries, seed)
    asked = queries.to(gallery.labels.device)
    targets = {
        attack.name: attack.draw(gallery, asked, generator(seed, "evaluation", attack.name)).cpu()
        for attack in attacks(settings.protocol)
    }
    return Plan(gallery, queries, targets, settings, image_size)


def run_part(
    plan: Plan, part: Part, model: nn.Module, images: ImageSet, on_batch: Callable[[int], None] | None = None
) -> Values:
    """Attack the queries of a part and measure them before and after.

    Args:
        plan: of the evaluation.
        part: which queries, which attack.
        model: on the gallery's device.
        images: the gallery's images.
        on_batch: told how many queries are behind it.

    Raises:
        ModelError: unusable embeddings of perturbed images.
        DataError: an image that cannot be read.
    """
    settings, gallery = plan.settings, plan.gallery
    device = gallery.embeddings.device
    attack = attack_named(part.attack, settings)
    budget = Budget(settings.epsilon, settings.step_size, settings.steps)
    before: list[dict[str, Tensor]] = []
    after: list[dict[str, Tensor]] = []
    chosen = slice(part.start, part.stop)
    batches = [in_batches(one[chosen], settings.batch_size) for one in (plan.queries, plan.targets[part.attack])]
    for moving, target in zip(*batches, strict=True):
        view = evaluation_view(images.pixels(moving).to(device), plan.image_size)
        attacked = AttackBatch(gallery, moving.to(device), target.to(device))
        before.append(attack.measure(attacked, gallery.embeddings[attacked.moving]))
        after.append(attack.run(attack, model, view, attacked, budget))
        if on_batch:
            on_batch(len(moving))
    return Values(_joined(before), _joined(after))


def attack_named(name: str, settings: EvaluationSettings) -> Attack:
    """The attack of this name in the protocol of the settings."""
    return next(attack for attack in attacks(settings.protocol) if attack.name == name)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


class PartStore:
    """Finished parts in a folder, so that an evaluation that was interrupted need not do them again."""

    def __init__(self, folder: Path, digest: str) -> None:
        """Open the store of one plan; parts of another model, seed or setting are never mixed in.

        Args:
            folder: of all partial results; made when the first part is kept.
            digest: of the plan.
        """
        self.folder = folder / digest[:16]

    def load(self, part: Part) -> Values | None:
        """What was kept of a part; None where there is nothing whole."""
        with contextlib.suppress(OSError, SafetensorError):
            kept = load_file(self.folder / f"{part.name}.safetensors")
            split: dict[str, dict[str, Tensor]] = {"before": {}, "after": {}}
            for name, values in kept.items():
                when, _, number = name.partition(" ")
                split[when][number] = values
            return Values(**split)
        return None

    def keep(self, part: Part, values: Values) -> None:
        """Write a part, atomically."""
        tensors = {f"{when} {name}": one for when in ("before", "after") for name, one in getattr(values, when).items()}
        contiguous = {name: one.contiguous() for name, one in tensors.items()}
        write_atomically(self.folder / f"{part.name}.safetensors", save(contiguous))

    def clear(self) -> None:
        """Forget all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def all_values(parts: Sequence[Part], done: dict[Part, Values]) -> Values:
    """The values of all queries in their order, from all parts."""
    joined: dict[str, dict[str, list[Tensor]]] = {"before": {}, "after": {}}
    for part in sorted(parts, key=lambda one: one.start):
        for when, names in joined.items():
            for name, values in getattr(done[part], when).items():
                names.setdefault(name, []).append(values)
    return Values(**{when: {name: torch.cat(each) for name, each in names.items()} for when, names in joined.items()})


def locally(model: nn.Module, images: ImageSet, on_batch: Callable[[str, int], None]) -> RunParts:
    """Do parts one after the other in this process.

    Args:
        model: on the gallery's device.
        images: the gallery's images.
        on_batch: told the attack and how many queries are behind it.
    """

    def run(plan: Plan, parts: Sequence[Part]) -> Iterator[tuple[Part, Values]]:
        for part in parts:

            def told(count: int, part: Part = part) -> None:
                on_batch(part.attack, count)

            yield part, run_part(plan, part, model, images, told)

    return run


def in_group(group: ProcessGroup, model: nn.Module, images: ImageSet) -> RunParts:
    """Divide parts among the processes of a group, each of which gets all values.

    Args:
        group: every process of it makes the same plan and calls this.
        model: on the gallery's device.
        images: the gallery's images.
    """

    def run(plan: Plan, parts: Sequence[Part]) -> Iterator[tuple[Part, Values]]:
        own = [(part, run_part(plan, part, model, images)) for part in parts[group.rank :: group.size]]
        for done in group.all_gather(own):
            yield from done

    return run
