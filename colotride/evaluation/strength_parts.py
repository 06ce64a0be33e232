"""The measurements beside the attacks, cut into parts that can be done anywhere, in any order, and be kept.

What is measured query by query is divided into whole batches of queries. The universal perturbation and the poisons are
trained on many queries together: each is one part.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.evaluation import targets
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.black_box import black_box_table, black_box_values
from colotride.evaluation.certified import certified_table, certified_values
from colotride.evaluation.chunks import BATCHES_PER_CHUNK, EvaluationPlan
from colotride.evaluation.gallery import Gallery, embed_gallery, in_batches, read_views
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.poisoning import poisoning_measurement
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.evaluation.universal import universal_measurement
from colotride.io import write_atomically
from colotride.randomness import generator

Kind = Literal["black box", "universal", "poisoning", "certified"]


@dataclass(frozen=True)
class StrengthPart:
    """The queries from `start` to `stop` in one row of one table, or a table that is made as a whole."""

    kind: Kind
    start: int
    stop: int
    row: int = 0
    """Place among the settings' attacks without gradients, or among their sigmas."""

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.kind.replace(' ', '-')}-{self.row}-{self.start:07d}-{self.stop:07d}"

    def title(self, settings: StrengthSettings) -> str:
        """For people."""
        if self.kind == "black box":
            return f"black box: {settings.black_box[self.row]}"
        if self.kind == "certified":
            return f"certified R@1, sigma {settings.certify[self.row]:g}"
        return {"universal": "universal perturbation", "poisoning": "poisoning"}[self.kind]


@dataclass(frozen=True)
class QueryValues:
    """What a part found on each of its queries, on the CPU, and the time that it took."""

    values: dict[str, Tensor]
    seconds: float


PartResult = Measurement | QueryValues


def strength_parts(settings: StrengthSettings, plan: EvaluationPlan) -> list[StrengthPart]:
    """Every part of what is asked for, in the order of the tables."""
    size, count = plan.settings.batch_size * BATCHES_PER_CHUNK, len(plan.queries)
    whole: dict[Kind, bool] = {"universal": settings.universal, "poisoning": settings.poison is not None}

    def rows(kind: Kind, number: int) -> list[StrengthPart]:
        starts = range(0, count, size)
        return [StrengthPart(kind, start, min(count, start + size), row) for row in range(number) for start in starts]

    return [
        *rows("black box", len(settings.black_box)),
        *(StrengthPart(kind, 0, count) for kind, asked in whole.items() if asked),
        *rows("certified", len(settings.certify)),
    ]


class StrengthWork:
    """Does parts; a `colotride.evaluation.chunks.Work` that loads its surrogate once, where it is needed."""

    def __init__(
        self, settings: StrengthSettings, surrogate: "tuple[nn.Module, Gallery] | Callable[[], nn.Module] | None"
    ) -> None:
        """Prepare.

        Args:
            settings: what is measured.
            surrogate: the network of the transfer attack with its gallery, or what makes it on a worker; None where it is
                not asked for.
        """
        self._settings, self._surrogate = settings, surrogate

    def __call__(self, plan: EvaluationPlan, part: StrengthPart, model: nn.Module, images: ImageSet) -> PartResult:
        """Do one part.

        Args:
            plan: of the evaluation.
            part: of its measurements.
            model: on the device of the plan's gallery.
            images: the gallery's images.

        Raises:
            ModelError: unusable embeddings.
        """
        settings, device, budget = (
            self._settings,
            plan.gallery.embeddings.device,
            plan.settings.budget(plan.settings.epsilon),
        )
        if part.kind == "universal":
            random = generator(plan.seed, "evaluation", "universal", "halves")
            order = plan.queries[torch.randperm(len(plan.queries), generator=random)]
            trained, judged = (query_batches(model, images, plan, half) for half in order.tensor_split(2))
            return universal_measurement(model, trained, judged, budget, plan.seed)
        if part.kind == "poisoning":

            def views(places: Tensor) -> Tensor:
                return read_views(images, places, plan.image_size, model, device)

            assert settings.poison is not None
            return poisoning_measurement(model, plan.gallery, plan.queries, views, budget, settings.poison, plan.seed)
        started, found = time.perf_counter(), []
        for view, attacked in query_batches(model, images, plan, plan.queries[part.start : part.stop])():
            if part.kind == "certified":
                sigma, size = settings.certify[part.row], plan.settings.batch_size
                found.append(certified_values(model, view, attacked, sigma, settings, plan.seed, size))
            else:
                name = settings.black_box[part.row]
                other = self._surrogate_of(plan, images) if name == "transfer" else None
                found.append(black_box_values(name, model, view, attacked, budget, settings.calls, plan.seed, other))
        return QueryValues(joined(found), time.perf_counter() - started)

    def _surrogate_of(self, plan: EvaluationPlan, images: ImageSet) -> tuple[nn.Module, Gallery]:
        assert self._surrogate is not None
        if not isinstance(self._surrogate, tuple):
            network = self._surrogate().to(plan.gallery.embeddings.device)
            self._surrogate = network, surrogate_gallery(network, images, plan)
        return self._surrogate


class PartStore:
    """Finished parts in a folder, so that an evaluation that was interrupted need not do them again."""

    def __init__(self, folder: Path, digest: str) -> None:
        """Open the store of one evaluation; parts of another model, seed or setting are never mixed in.

        Args:
            folder: of all partial results; made when the first part is saved.
            digest: of everything that decides the figures.
        """
        self.folder = folder / digest[:16]

    def load(self, part: StrengthPart) -> PartResult | None:
        """What was saved of a part; None where there is nothing whole."""
        path = self.folder / part.name
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, SafetensorError):
            if part.kind in ("universal", "poisoning"):
                return Measurement.from_dict(json.loads(path.with_suffix(".json").read_text()))
            values = load_file(path.with_suffix(".safetensors"))
            return QueryValues(values, float(values.pop("seconds")))
        return None

    def save(self, part: StrengthPart, found: PartResult) -> None:
        """Write a part, atomically."""
        path = self.folder / part.name
        if isinstance(found, Measurement):
            write_atomically(path.with_suffix(".json"), json.dumps(asdict(found)).encode())
        else:
            kept = found.values | {"seconds": torch.tensor(found.seconds, dtype=torch.float64)}
            write_atomically(path.with_suffix(".safetensors"), save(kept))


def strength_tables(
    settings: StrengthSettings, plan: EvaluationPlan, done: Mapping[StrengthPart, PartResult]
) -> tuple[Measurement, ...]:
    """The tables of all parts, in the order of `strength_parts`."""
    by_kind: dict[Kind, list[StrengthPart]] = {}
    for part in strength_parts(settings, plan):
        by_kind.setdefault(part.kind, []).append(part)
    tables = []
    for kind, parts in by_kind.items():
        whole = done[parts[0]]
        if isinstance(whole, Measurement):
            tables.append(whole)
            continue
        rows: dict[int, list[dict[str, Tensor]]] = {}
        seconds = 0.0
        for part in parts:
            found = done[part]
            assert isinstance(found, QueryValues)
            rows.setdefault(part.row, []).append(found.values)
            seconds += found.seconds
        if kind == "certified":
            certified = {settings.certify[row]: joined(found) for row, found in rows.items()}
            tables.append(certified_table(certified, settings, seconds))
        else:
            black_box = {settings.black_box[row]: joined(found) for row, found in rows.items()}
            tables.append(
                black_box_table(black_box, plan.settings.budget(plan.settings.epsilon), settings.calls, seconds)
            )
    return tuple(tables)


def joined(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The values of all queries, from those of parts of them in their order."""
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def query_batches(
    model: nn.Module, images: ImageSet, plan: EvaluationPlan, queries: Tensor
) -> Callable[[], Iterator[tuple[Tensor, AttackBatch]]]:
    """Batches of queries with their clean first results as targets, read anew at each call."""
    gallery, device = plan.gallery, plan.gallery.embeddings.device
    first = targets.nearest_others(gallery, queries.to(device), generator(plan.seed)).to(device)

    def batches() -> Iterator[tuple[Tensor, AttackBatch]]:
        size = plan.settings.batch_size
        for moving, target in zip(in_batches(queries, size), in_batches(first, size), strict=True):
            view = read_views(images, moving, plan.image_size, model, device)
            yield view, AttackBatch(gallery, moving.to(device), target)

    return batches


def surrogate_gallery(surrogate: nn.Module, images: ImageSet, plan: EvaluationPlan) -> Gallery:
    """The gallery as a surrogate embeds it.

    Raises:
        ModelError: unusable embeddings.
    """
    return embed_gallery(
        surrogate,
        images,
        image_size=plan.image_size,
        batch_size=plan.settings.batch_size,
        device=plan.gallery.embeddings.device,
    )
