"""Ray, started quietly, and evaluations spread over its GPUs and nodes."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from colotride.data.base import ImageSet
from colotride.errors import ConfigurationError
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.parts import Part, Plan, RunParts, Values, run_part

Load = Callable[[], tuple[nn.Module, ImageSet]]
"""Makes the model, on the CPU, and the images, on a worker."""

LAUNCHED = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's description on its head, as JSON; jobs that are submitted run there."""


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine, silently and without a dashboard."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # What fails in a worker is told by whoever asked for it.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": os.cpu_count(), "include_dashboard": False}
    ray.init(logging_level=logging.CRITICAL, log_to_driver=False, ignore_reinit_error=True, **here)


def machines() -> list[Mapping[str, float]]:
    """What each machine offers, by Ray's names (CPU, GPU): this one before Ray is started, else those of the cluster.

    Of a cluster, also a machine of each kind that would be started on demand.
    """
    if ray.is_initialized():
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return there + startable(LAUNCHED.expanduser()) if os.environ.get("RAY_ADDRESS") else there
    return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]


def startable(launched: Path) -> list[Mapping[str, float]]:
    """What a machine of each kind offers that the launcher starts on demand; nothing where there is no launcher.

    Args:
        launched: the cluster's description, see `LAUNCHED`.
    """
    if not launched.is_file():
        return []
    description = json.loads(launched.read_text())
    head = description.get("head_node_type")
    kinds = description.get("available_node_types", {}).items()
    offered = [kind["resources"] for name, kind in kinds if name != head and kind.get("max_workers", 0) > 0]
    return [{name: float(amount) for name, amount in resources.items()} for resources in offered]


def on_workers(load: Load, workers: int, *, gpus: float, cpus: int = 1) -> RunParts:
    """Do the parts of an evaluation on Ray's workers; each takes the next part when it has done one.

    Args:
        load: what each worker loads once.
        workers: how many.
        gpus: of each worker; 0 computes on the CPU.
        cpus: of each worker; also its threads.

    Raises:
        ConfigurationError: the machines can never hold so many.
    """

    def run(plan: Plan, parts: Sequence[Part]) -> Iterator[tuple[Part, Values]]:
        if not parts:
            return
        start_ray()
        _check(ray.cluster_resources(), workers, gpus, cpus)
        shared = ray.put(_moved(plan, torch.device("cpu")))
        idle = [
            ray.remote(num_cpus=cpus, num_gpus=gpus)(_Worker).remote(load, shared, gpus > 0, cpus)
            for _ in range(min(workers, len(parts)))
        ]
        waiting = list(parts)
        busy: dict[ray.ObjectRef, tuple[Any, Part]] = {}
        while waiting or busy:
            while waiting and idle:
                worker, part = idle.pop(), waiting.pop(0)
                busy[worker.run.remote(part)] = (worker, part)
            (ended, *_), _ = ray.wait(list(busy))
            worker, part = busy.pop(ended)
            try:
                values = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            idle.append(worker)
            yield part, values

    return run


def _check(held: dict[str, float], workers: int, gpus: float, cpus: int) -> None:
    for name, wanted in (("CPU", workers * cpus), ("GPU", workers * gpus)):
        there = held.get(name, 0.0)
        if wanted > there:
            raise ConfigurationError(
                f"--workers {workers} needs {wanted:g} {name}s, the machines have {there:g}; "
                "ask for fewer, or add machines with ray up"
            )


def _moved(plan: Plan, device: torch.device) -> Plan:
    gallery = Gallery(plan.gallery.embeddings.to(device), plan.gallery.labels.to(device))
    return replace(plan, gallery=gallery)


class _Worker:
    def __init__(self, load: Load, plan: Plan, gpu: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        device = torch.device("cuda" if gpu else "cpu")
        model, self._images = load()
        self._model, self._plan = model.to(device), _moved(plan, device)

    def run(self, part: Part) -> Values:
        return run_part(self._plan, part, self._model, self._images)
