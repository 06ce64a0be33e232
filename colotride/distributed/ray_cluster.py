"""Ray, started quietly, and evaluations spread over its GPUs and nodes."""

import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from colotride.data.base import ImageSet
from colotride.errors import ConfigurationError, WorkerError
from colotride.evaluation.chunks import EvaluationPlan, Executor, Found, Part, Work
from colotride.evaluation.gallery import Gallery

Load = Callable[[], tuple[nn.Module, ImageSet]]
"""Makes the model, on the CPU, and the images, on a worker."""

LAUNCHED = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's description on its head, as JSON; jobs that are submitted run there."""

NO_METRICS = {"RAY_enable_metrics_collection": "0", "AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
"""Keeps Ray from opening ports for metrics; nothing is opened at -1."""

TOKEN = Path("~/.ray/auth_token")
"""Where Ray keeps the token of this user."""

ATTEMPTS = 2
"""How often Ray is started: it gives up after 30 seconds, which a busy machine may take longer for once."""

HEAD = "node:__internal_head__"
"""Ray's name for what the head alone offers."""


def start_ray(cpus: int | None = None) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine, silently and without a dashboard.

    What Ray starts here listens on all of the machine's addresses, and asks for a token that only this user can read.

    Args:
        cpus: how many cores Ray is told of where it is started here; None for those that there are.

    Raises:
        ConfigurationError: this Ray asks for no token by itself.
        WorkerError: Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # The caller reports what fails in a worker.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    # Ray would end the process on SIGTERM in the middle of what it does.
    former = signal.getsignal(signal.SIGTERM)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.CRITICAL, log_to_driver=False)
        _restore(former)
        return
    # Ray's processes inherit the environment in which they start.
    added = {name: value for name, value in NO_METRICS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        _start_here(cpus or os.cpu_count())
    finally:
        for name in added:
            del os.environ[name]
        _restore(former)
    # Ray sets the mode itself; where somebody has set another one, that was a choice.
    if "RAY_AUTH_MODE" not in os.environ:
        ray.shutdown()
        raise ConfigurationError(
            f"Ray {ray.__version__} would take commands from anybody; set RAY_AUTH_MODE=token in the environment"
        )
    # Ray writes it for everybody to read.
    with contextlib.suppress(OSError):
        TOKEN.expanduser().chmod(0o600)


def _start_here(cpus: int | None) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # By itself Ray would also join whatever cluster was started last on this machine.
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
            )
            return
        except Exception as error:
            # On a machine that is too busy, or whose /tmp is full, Ray raises what has no type of its own.
            if attempt == ATTEMPTS:
                reason = " ".join(str(error).split())[:200]
                raise WorkerError(
                    f"Ray cannot be started on this machine ({reason}); see that it is not too busy and that /tmp has "
                    "room, then give the same command again"
                ) from error
            ray.shutdown()


def _restore(handler: Any) -> None:
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def result_of(task: ray.ObjectRef) -> Any:
    """What a task returns; what it raised is raised as it is, without Ray's traceback in its text.

    Raises:
        WorkerError: its process or its machine was lost more often than it is tried again.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkerError(
            f"a process of Ray was lost too often ({type(error).__name__}: {reason}); what is finished is kept: go on with "
            "--resume, or with the same command where it has no such option"
        ) from None


def machines() -> list[Mapping[str, float]]:
    """What each machine offers, by Ray's names (CPU, GPU): this one before Ray is started on it, else the cluster's.

    It starts Ray only to ask a cluster, so that what this machine cannot hold is refused at once.

    A cluster whose machines are started on demand counts as it is when it has grown to its full size.
    """
    if os.environ.get("RAY_ADDRESS"):
        start_ray()
    if not ray.is_initialized():
        return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_demand = startable(LAUNCHED.expanduser()) if os.environ.get("RAY_ADDRESS") else []
    # What the launcher has started already is among what it can start.
    return [machine for machine in there if HEAD in machine] + on_demand if on_demand else there


def startable(launched: Path) -> list[Mapping[str, float]]:
    """What each machine offers that the launcher may start, at most; nothing where there is no such launcher.

    Args:
        launched: the cluster's description, see `LAUNCHED`.
    """
    if not launched.is_file():
        return []
    description = json.loads(launched.read_text())
    kinds = [
        kind for name, kind in description["available_node_types"].items() if name != description["head_node_type"]
    ]
    each = [
        [{name: float(amount) for name, amount in kind["resources"].items()}] * kind["max_workers"] for kind in kinds
    ]
    # One of each kind in turn: the largest counts even where not all of them may be there at once.
    mixed = [machine for some in zip_longest(*each) for machine in some if machine is not None]
    return mixed[: description["max_workers"]]


def on_workers(load: Load, workers: int, *, gpus: float, cpus: int = 1) -> Executor[Any, Any]:
    """Do the parts of an evaluation on Ray's workers; each takes the next part when it has done one.

    Args:
        load: what each worker loads once.
        workers: how many.
        gpus: of each worker; 0 computes on the CPU.
        cpus: of each worker; also its threads.

    Raises:
        ConfigurationError: the machines can never hold that many.
    """
    _check(machines(), workers, gpus, cpus)

    def run(work: Work[Part, Found], plan: EvaluationPlan, parts: Sequence[Part]) -> Iterator[tuple[Part, Found]]:
        if not parts:
            return
        start_ray()
        shared = ray.put(_moved(plan, torch.device("cpu")))
        idle = [
            ray.remote(num_cpus=cpus, num_gpus=gpus)(_EvaluationActor).remote(load, work, shared, gpus > 0, cpus)
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
            found = result_of(ended)
            idle.append(worker)
            yield part, found

    return run


def _check(offered: Sequence[Mapping[str, float]], workers: int, gpus: float, cpus: int) -> None:
    for name, wanted in (("CPU", workers * cpus), ("GPU", workers * gpus)):
        there = sum(machine.get(name, 0.0) for machine in offered)
        if wanted > there:
            raise ConfigurationError(
                f"--workers {workers} needs {wanted:g} {name}s, the machines have {there:g}; "
                "ask for fewer, or add machines with ray up"
            )


def _moved(plan: EvaluationPlan, device: torch.device) -> EvaluationPlan:
    gallery = Gallery(plan.gallery.embeddings.to(device), plan.gallery.labels.to(device))
    return replace(plan, gallery=gallery)


class _EvaluationActor:
    def __init__(self, load: Load, work: Work[Any, Any], plan: EvaluationPlan, gpu: bool, threads: int) -> None:
        torch.set_num_threads(threads)
        device = torch.device("cuda" if gpu else "cpu")
        model, self._images = load()
        self._work, self._model, self._plan = work, model.to(device), _moved(plan, device)

    def run(self, part: Any) -> Any:
        return self._work(self._plan, part, self._model, self._images)
