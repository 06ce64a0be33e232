"""An index of many embeddings: time and memory to make it, time of a query, and what its graph misses."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from colotride.index import Kind, index_of, nearest
from scripts.benchmarks.timing import side_by_side

DIMENSIONS = 512
CLASSES = 1000
SPREAD = 1.0
"""Length of the noise around a class's direction, whose length is 1."""

DIRECTIONS = 32
"""In which images of a class differ: learnt embeddings use few of their dimensions."""

QUERIES, NEIGHBOURS = 200, 10
KINDS: tuple[Kind, ...] = ("exact", "hnsw")


@dataclass(frozen=True)
class IndexRow:
    """One index."""

    images: int
    kind: str
    build_seconds: float
    peak_mib: float
    """Largest memory while it was built, beyond the embeddings."""
    query_ms: float
    """Of one query by itself."""
    recall: float
    """Share of the exact ten nearest that are found."""


def embeddings_of(images: int, seed: int = 0) -> Tensor:
    """Unit vectors [images, 512] around the directions of a thousand classes."""
    shared = torch.Generator().manual_seed(0)
    centres = functional.normalize(torch.randn(CLASSES, DIMENSIONS, generator=shared), dim=1)
    directions = torch.linalg.qr(torch.randn(DIMENSIONS, DIRECTIONS, generator=shared))[0].T
    random = torch.Generator().manual_seed(seed + 1)
    found = torch.empty(images, DIMENSIONS)
    for part in found.split(50_000):
        noise = torch.randn(len(part), DIRECTIONS, generator=random)
        torch.mm(noise, directions * (SPREAD / DIRECTIONS**0.5), out=part)
        part += centres[torch.randint(CLASSES, (len(part),), generator=random)]
        part /= part.norm(dim=1, keepdim=True)
    return found


def measure_indexes(sizes: Sequence[int], on_run: Callable[[str], None] | None = None) -> list[IndexRow]:
    """Measure both kinds of index for collections of several sizes."""
    return [row for images in sizes for row in _measure(images, on_run)]


def _measure(images: int, on_run: Callable[[str], None] | None) -> list[IndexRow]:
    embeddings = embeddings_of(images)
    queries = embeddings_of(QUERIES, seed=1)
    made: dict[str, Any] = {}

    def build(kind: Kind) -> Callable[[], None]:
        return lambda: made.update({kind: index_of(embeddings, kind)})

    works = {str(kind): build(kind) for kind in KINDS}
    measured = side_by_side(
        works,
        1,
        torch.device("cpu"),
        None if on_run is None else lambda kind: on_run(f"{kind}, {images:,} images"),
        warm=False,
    )
    rows, exact = [], nearest(made["exact"], queries, NEIGHBOURS)[1]
    for kind, index in made.items():
        started = time.perf_counter()
        found = torch.cat([torch.from_numpy(nearest(index, query, NEIGHBOURS)[1]) for query in queries.split(1)])
        seconds = time.perf_counter() - started
        hits = (found[:, :, None] == torch.from_numpy(exact)[:, None, :]).any(dim=2)
        rows.append(
            IndexRow(
                images,
                kind,
                measured[kind].best,
                measured[kind].peak_bytes / 2**20,
                1000 * seconds / QUERIES,
                float(hits.float().mean()),
            )
        )
    return rows
