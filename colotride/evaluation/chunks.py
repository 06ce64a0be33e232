"""An evaluation cut into chunks that can be done anywhere, in any order, and be kept.

A chunk is some whole batches of queries under one attack at one radius. Its values depend on nothing else, so that the
same numbers come out whoever does which chunk.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.distributed.shards import ProcessGroup
from colotride.errors import ConfigurationError
from colotride.evaluation.attacks import AttackBatch, Direction, attack_named
from colotride.evaluation.gallery import Gallery, in_batches, read_views
from colotride.evaluation.scores import ATTACK_NAMES
from colotride.evaluation.settings import EvaluationSettings, Protocol
from colotride.evaluation.strong import run_ensemble, worse
from colotride.io import write_atomically
from colotride.randomness import derive_seed, generator

BATCHES_PER_CHUNK = 8


@dataclass(frozen=True)
class Chunk:
    """The queries from `start` to `stop` under one attack at one radius."""

    attack: str
    start: int
    stop: int
    radius: int = 0
    """Place among the settings' radii."""

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.attack}-{self.radius}-{self.start:07d}-{self.stop:07d}"


@dataclass(frozen=True)
class EvaluationPlan:
    """All that is decided before the first attack: the gallery, who is attacked and with which targets."""

    gallery: Gallery
    queries: Int[Tensor, "queries"]
    targets: dict[str, Int[Tensor, "queries"]]
    """By attack, the place of each query's target in the gallery."""
    settings: EvaluationSettings
    image_size: int
    seed: int

    def chunks(self) -> list[Chunk]:
        """Every chunk, radius by radius and attack by attack."""
        size, count = self.settings.batch_size * BATCHES_PER_CHUNK, len(self.queries)
        return [
            Chunk(name, start, min(count, start + size), radius)
            for radius in range(len(self.settings.all_radii))
            for name in self.targets
            for start in range(0, count, size)
        ]

    def digest(self) -> str:
        """Digest of everything that decides the values of the chunks, the model included through its embeddings."""
        decisive = self.settings.model_dump_json(exclude={"bootstrap"})
        summary = hashlib.sha256(f"{decisive} {self.seed}".encode())
        for values in (self.gallery.embeddings, self.gallery.labels, self.queries, *self.targets.values()):
            summary.update(values.cpu().contiguous().numpy().tobytes())
        return summary.hexdigest()


@dataclass(frozen=True)
class Values:
    """What a chunk found: one value per query and attack number, on the CPU."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    trace: dict[str, Float[Tensor, "queries steps"]] = field(default_factory=dict)
    """Of the strong protocol: what each number would be had the attack stopped earlier, at `strong.trace_steps`."""
    strict: dict[str, Tensor] = field(default_factory=dict)
    """Of the strong protocol: the numbers that the attack of `strict` reached, which is part of it."""


Part = TypeVar("Part")
Found = TypeVar("Found")

Work = Callable[[EvaluationPlan, Part, nn.Module, ImageSet], Found]
"""Does one part of an evaluation, such as a chunk, with the model and the gallery's images; `run_chunk` is one."""

Executor = Callable[[Work[Part, Found], EvaluationPlan, Sequence[Part]], Iterable[tuple[Part, Found]]]
"""Does parts, in any order, and hands each over as it ends."""


def draw_queries(images: int, budget: int | None, seed: int) -> Int[Tensor, "queries"]:
    """Which images are attacked: all of them, or as many as the budget says, drawn without repetition, in order."""
    if budget is None or budget >= images:
        return torch.arange(images)
    return torch.randperm(images, generator=generator(seed, "evaluation", "queries"))[:budget].sort().values


def make_plan(gallery: Gallery, settings: EvaluationSettings, image_size: int, seed: int) -> EvaluationPlan:
    """Draw queries and targets from the seed alone, so that two models with one seed face the same queries.

    Raises:
        ConfigurationError: two attacks report a number of the same name.
    """
    names = (*ATTACK_NAMES, *settings.extra_attacks)
    number_owners(names, settings.protocol)
    queries = draw_queries(len(gallery), settings.queries, seed)
    asked = queries.to(gallery.labels.device)
    targets = {
        name: attack_named(name, settings.protocol).draw(gallery, asked, generator(seed, "evaluation", name)).cpu()
        for name in names
    }
    return EvaluationPlan(gallery, queries, targets, settings, image_size, seed)


def number_owners(names: Iterable[str], protocol: Protocol) -> dict[str, tuple[str, Direction]]:
    """By reported number, the attack that reports it and where that attack wants to move it.

    Raises:
        ConfigurationError: two attacks report a number of the same name.
    """
    owners: dict[str, tuple[str, Direction]] = {}
    for name in names:
        for number, direction in attack_named(name, protocol).numbers.items():
            if number in owners:
                raise ConfigurationError(
                    f"attack {name!r} reports {number!r}, which attack {owners[number][0]!r} reports already; "
                    "give its number another name"
                )
            owners[number] = (name, direction)
    return owners


def run_chunk(
    plan: EvaluationPlan,
    chunk: Chunk,
    model: nn.Module,
    images: ImageSet,
    on_batch: Callable[[str, int], None] | None = None,
) -> Values:
    """Attack the queries of a chunk and measure them before and after.

    Args:
        plan: of the evaluation.
        chunk: which queries, which attack, which radius.
        model: on the gallery's device.
        images: the gallery's images.
        on_batch: called with the attack and how many queries are behind it.

    Raises:
        ModelError: unusable embeddings of perturbed images.
        DataError: an image that cannot be read.
    """
    settings, gallery = plan.settings, plan.gallery
    device = gallery.embeddings.device
    attack = attack_named(chunk.attack, settings.protocol)
    budget = settings.budget(settings.all_radii[chunk.radius])
    found: list[Values] = []
    chosen = slice(chunk.start, chunk.stop)
    batches = [in_batches(each[chosen], settings.batch_size) for each in (plan.queries, plan.targets[chunk.attack])]
    for moving, target in zip(*batches, strict=True):
        view = read_views(images, moving, plan.image_size, model, device)
        attacked = AttackBatch(gallery, moving.to(device), target.to(device))
        before = attack.measure(attacked, attacked.clean)
        if settings.protocol == "strong":
            seed = derive_seed(plan.seed, "evaluation", "strong", chunk.attack)
            reached = run_ensemble(attack, model, view, attacked, budget, seed)
            found.append(Values(before, reached.worst, reached.trace, reached.strict))
        else:
            found.append(Values(before, attack.run(model, view, attacked, budget)))
        if on_batch:
            on_batch(chunk.attack, len(moving))
    return _joined(found)


def _joined(found: Sequence[Values]) -> Values:
    first = found[0]
    return Values(
        **{
            each.name: {
                name: torch.cat([getattr(values, each.name)[name] for values in found]).cpu()
                for name in getattr(first, each.name)
            }
            for each in fields(Values)
        }
    )


class ChunkStore:
    """Finished chunks in a folder, so that an evaluation that was interrupted need not do them again."""

    def __init__(self, folder: Path, digest: str) -> None:
        """Open the store of one plan; chunks of another model, seed or setting are never mixed in.

        Args:
            folder: of all partial results; made when the first chunk is saved.
            digest: of the plan.
        """
        self.folder = folder / digest[:16]

    def load(self, chunk: Chunk) -> Values | None:
        """What was saved of a chunk; None where there is nothing whole."""
        with contextlib.suppress(OSError, SafetensorError):
            split: dict[str, dict[str, Tensor]] = {each.name: {} for each in fields(Values)}
            for name, values in load_file(self.folder / f"{chunk.name}.safetensors").items():
                which, _, number = name.partition(" ")
                split[which][number] = values
            return Values(**split)
        return None

    def save(self, chunk: Chunk, values: Values) -> None:
        """Write a chunk, atomically."""
        tensors = {
            f"{each.name} {name}": tensor.contiguous()
            for each in fields(Values)
            for name, tensor in getattr(values, each.name).items()
        }
        write_atomically(self.folder / f"{chunk.name}.safetensors", save(tensors))

    def clear(self) -> None:
        """Forget all chunks."""
        shutil.rmtree(self.folder, ignore_errors=True)


def all_values(chunks: Sequence[Chunk], done: dict[Chunk, Values]) -> Values:
    """The values of all queries in their order, from all chunks of one radius."""
    by_attack: dict[str, list[Values]] = {}
    for chunk in sorted(chunks, key=lambda each: each.start):
        by_attack.setdefault(chunk.attack, []).append(done[chunk])
    joined = [_joined(found) for found in by_attack.values()]
    return Values(
        **{
            each.name: {name: tensor for values in joined for name, tensor in getattr(values, each.name).items()}
            for each in fields(Values)
        }
    )


def worst_so_far(plan: EvaluationPlan, by_radius: Sequence[Values]) -> list[Values]:
    """What the strong protocol makes of several radii: an image perturbed within a small one is in a larger ball too.

    Args:
        plan: of the evaluation.
        by_radius: what was found at each radius, in increasing order.
    """
    owners = number_owners(plan.targets, plan.settings.protocol)
    found = [by_radius[0]]
    for values in by_radius[1:]:
        smaller = found[-1].after
        after = {name: worse(owners[name][1], smaller[name], each) for name, each in values.after.items()}
        trace = {name: worse(owners[name][1], smaller[name][:, None], each) for name, each in values.trace.items()}
        found.append(replace(values, after=after, trace=trace))
    return found


def in_process(model: nn.Module, images: ImageSet) -> Executor[Any, Any]:
    """Do parts one after the other in this process.

    Args:
        model: on the gallery's device.
        images: the gallery's images.
    """

    def run(work: Work[Part, Found], plan: EvaluationPlan, parts: Sequence[Part]) -> Iterator[tuple[Part, Found]]:
        for part in parts:
            yield part, work(plan, part, model, images)

    return run


def in_group(group: ProcessGroup, model: nn.Module, images: ImageSet) -> Executor[Any, Any]:
    """Divide parts among the processes of a group, each of which gets everything that was found.

    Args:
        group: every process of it makes the same plan and calls this.
        model: on the gallery's device.
        images: the gallery's images.
    """

    def run(work: Work[Part, Found], plan: EvaluationPlan, parts: Sequence[Part]) -> Iterator[tuple[Part, Found]]:
        own = [(part, work(plan, part, model, images)) for part in parts[group.rank :: group.size]]
        for done in group.all_gather(own):
            yield from done

    return run
