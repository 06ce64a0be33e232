"""What several workers cost and bring: throughput, start-up of Ray, loading, resident memory."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import distributed, multiprocessing

from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.distributed.ray_cluster import start_ray
from colotride.distributed.ray_train import Workers, train_on_workers
from colotride.distributed.shards import ProcessGroup
from colotride.presets import preset
from colotride.training.records import EpochRecord
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.trainer import Trainer
from scripts.benchmarks.scaling_model import Fabric, cycle, efficiency, measured_fabric

EPOCHS, BATCHES = 3, 4
PGD_STEPS = 8
"""Of the training that is measured."""

CLASSES, PER_CLASS, SIDE = 8, 8, 64
"""Of the images that are made up for the measurement: noise, because speed does not depend on what they show."""


@dataclass(frozen=True)
class Throughput:
    """Training with this many workers, each with as many pairs per batch as the others."""

    workers: int
    pairs_per_second: float
    efficiency: float
    """Of weak scaling: pairs per second and worker over those of one worker; in [0, 1] but for noise."""
    predicted: float
    """The same of the model: what exchanges alone leave of it, with what connects the processes measured first."""
    startup: float
    """Seconds from the call to the end, less the epochs: what Ray Train adds to a run."""


def measure_scaling(
    root: Path, workers: tuple[int, ...], pairs_per_worker: int, on_run: Callable[[str], None]
) -> tuple[float, list[Throughput]]:
    """Train a small run with each number of workers, one thread each.

    Args:
        root: of the images that `make_images` wrote.
        workers: how many; the first is what the others are compared with.
        pairs_per_worker: of a batch.
        on_run: called with the name of each measurement before it.

    Returns:
        Seconds that Ray takes to start, and a row per number of workers.
    """
    on_run("Ray's start")
    began = time.perf_counter()
    start_ray()
    start = time.perf_counter() - began
    rows: list[Throughput] = []
    for count in workers:
        on_run(f"{count} workers")
        config = _config(root, count * pairs_per_worker)
        seconds, epochs = _timed(config, count)
        # The first epoch warms up.
        fastest = min(record.seconds for record in epochs[1:])
        speed = _pairs(config) / fastest
        one = rows[0].pairs_per_second / rows[0].workers if rows else speed / count
        startup = seconds - sum(record.seconds for record in epochs)
        predicted = _predicted(count, pairs_per_worker, pairs_per_worker / one)
        rows.append(Throughput(count, speed, speed / count / one, predicted, startup))
    return start, rows


def _predicted(workers: int, pairs: int, alone: float) -> float:
    """Efficiency of the mean of a CAP and an ANP step, by `scaling_model`."""
    if workers == 1:
        return 1.0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "fabric.json"
        multiprocessing.spawn(_measure_fabric, (workers, place), nprocs=workers)
        fabric = Fabric("these processes", **json.loads(place.read_text()))
    return efficiency(cycle(alone, pairs, PGD_STEPS), workers, fabric)


def _measure_fabric(rank: int, workers: int, place: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{place.with_name('processes')}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    try:
        found = measured_fabric(ProcessGroup.of_this_process())
    finally:
        distributed.destroy_process_group()
    if rank == 0:
        place.write_text(json.dumps({"bandwidth": found.bandwidth, "latency": found.latency}))


def plain_seconds(root: Path, pairs: int) -> float:
    """Seconds of the fastest epoch without Ray, in this process on one thread.

    Args:
        root: of the images that `make_images` wrote.
        pairs: of a batch.
    """
    config, threads = _config(root, pairs), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(config, load_splits(config.data).train, None, device=torch.device("cpu"))
        return min(record.seconds for record in trainer.run().history[1:])
    finally:
        torch.set_num_threads(threads)


def make_images(root: Path) -> None:
    """Write folders of classes with images of noise."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        place = root / "train" / f"class-{label}"
        place.mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")


def _timed(config: RunConfig, workers: int) -> tuple[float, list[EpochRecord]]:
    wanted = Workers(workers, workers, gpu=False, cpus=1)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        outcome = train_on_workers(config, wanted, Path(folder), checkpoint_policy=CheckpointPolicy())
        return time.perf_counter() - began, outcome.history


def _config(root: Path, pairs: int) -> RunConfig:
    return preset("cub").with_values(
        {
            "data.name": "folder",
            "data.root": root,
            "data.stored_size": SIDE,
            "data.image_size": SIDE,
            "data.pairs_per_batch": pairs,
            "data.pairs_per_epoch": BATCHES * pairs,
            "data.hold_out_validation": False,
            "model.weights": "none",
            "pgd.steps": PGD_STEPS,
            "training.epochs": EPOCHS,
        }
    )


def _pairs(config: RunConfig) -> int:
    return config.data.pairs_per_epoch or 0
