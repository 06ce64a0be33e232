"""The trainer under Ray Train: several workers train one run, and start again from its checkpoints after a fault.

The workers are one group of torch.distributed (gloo on CPUs, NCCL on GPUs) which Ray Train sets up. Gradients are
summed over them in one all_gather per batch, after sixteen or more passes through the network that need none.
"""

import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, PreemptionInfo, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.distributed.event_queue import EventQueue, EventRelay
from colotride.distributed.ray_cluster import machines, start_ray
from colotride.distributed.shards import ProcessGroup
from colotride.distributed.storage_probe import check_shared
from colotride.errors import ColoTrideError, ConfigurationError, WorkerError
from colotride.settings import number_range
from colotride.training.records import EpochRecord, Outcome
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.trainer import Trainer, check_group

POLL_SECONDS = 0.2
"""How often the driver asks for events of its workers."""

NOTICE_BATCHES = 10
"""Batches after which the workers ask again whether a machine is about to be taken away."""

CONTROLLER_FAILURES = 3
"""Attempts to place the workers; Ray's own default retries forever."""


@dataclass(frozen=True)
class Workers:
    """How many processes train a run, and what each has."""

    least: int
    most: int
    """Bounds of the number of workers; within them a run grows and shrinks with its cluster."""
    gpu: bool
    """One GPU each."""
    cpus: int
    """CPU cores of each; also its threads."""

    @classmethod
    def parse(cls, text: str, *, gpu: bool, cpus: int | None) -> "Workers":
        """Read "4" or "2:8".

        Args:
            text: a number, or a range from the fewest to the most.
            gpu: whether each has a GPU.
            cpus: of each; None for an equal share of this machine's.

        Raises:
            ConfigurationError: neither a number of workers nor a pair of them.
        """
        try:
            least, most = number_range(text)
        except ValueError as error:
            raise ConfigurationError(f"--workers {text}: {error}") from None
        if cpus is not None and cpus < 1:
            raise ConfigurationError(f"--cpus-per-worker {cpus} is too few; give 1 or more")
        return cls(least, most, gpu, cpus or max(1, (os.cpu_count() or 1) // most))

    def check(self) -> None:
        """Refuse what the cluster can never hold: Ray would wait for it forever.

        Raises:
            ConfigurationError: with what is asked for and what there is.
        """
        room = sum(self.room(machine) for machine in machines())
        if room < self.least:
            each = f"{self.cpus} CPUs" + (" and a GPU" if self.gpu else "")
            raise ConfigurationError(
                f"--workers {self.least} with {each} each do not fit: the machines here hold {room}; "
                "ask for fewer, or add machines with ray up"
            )

    def room(self, machine: Mapping[str, float]) -> int:
        """How many of them one machine holds; see `machines`."""
        by_cpu = machine.get("CPU", 0) // self.cpus
        return int(min(by_cpu, machine.get("GPU", 0)) if self.gpu else by_cpu)

    @property
    def resources(self) -> dict[str, float]:
        """Of one worker, by Ray's names."""
        return {"CPU": float(self.cpus), "GPU": 1.0} if self.gpu else {"CPU": float(self.cpus)}


@dataclass(frozen=True)
class TrainLoop:
    """What every worker is given."""

    config: RunConfig
    directory: Path
    checkpoint_policy: CheckpointPolicy
    threads: int
    queue: Any
    """Handle of the run's `EventQueue`."""


def train_on_workers(
    config: RunConfig,
    workers: Workers,
    directory: Path,
    *,
    checkpoint_policy: CheckpointPolicy,
    max_failures: int = 3,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Train a run on Ray's workers, from its newest checkpoint where there is one.

    Args:
        config: everything that decides the numbers; `data.pairs_per_batch` is divided among the workers.
        workers: how many, and what each has.
        directory: the run's folder, visible from every machine that may hold rank 0; else give
            `checkpoint_policy.storage` too.
        checkpoint_policy: how checkpoints are kept.
        max_failures: how many times the workers are started again after a fault; -1 for any number of times. A machine
            that its cloud takes away with notice does not count.
        on_epoch: called once for every epoch, those from before a resume included.
        on_step: called with (epoch, batches done, batches).
        should_stop: asked repeatedly; when it returns true, the workers then write a checkpoint and end.

    Raises:
        ConfigurationError: the cluster can never hold that many workers, a batch has fewer pairs, or the machines do not
            share the run's folder or its second copies.
        ColoTrideError: whatever the trainer raises.
        WorkerError: the workers failed more than `max_failures` times.
    """
    check_group(config, workers.most)
    start_ray()
    workers.check()
    check_shared(directory, checkpoint_policy.storage)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = ray.remote(num_cpus=0)(EventQueue).options(scheduling_strategy=here).remote()
    loop = TrainLoop(config, directory.absolute(), checkpoint_policy, workers.cpus, queue)
    trainer = _torch_trainer(loop, workers, max_failures)
    failed: list[BaseException] = []
    fitting = threading.Thread(target=_fit, args=(trainer, failed), name="ray-train", daemon=True)
    fitting.start()
    relay = EventRelay(on_epoch, on_step)
    stopping = False
    while fitting.is_alive():
        fitting.join(POLL_SECONDS)
        relay.send(ray.get(queue.take.remote()))
        if should_stop is not None and not stopping and should_stop():
            stopping = True
            ray.get(queue.ask_to_stop.remote())
    relay.send(ray.get(queue.take.remote()))
    packed: bytes | None = ray.get(queue.outcome.remote())
    ray.kill(queue)
    if packed is None:
        raise (
            cause_of(failed[0])
            if failed
            else WorkerError(f"the workers of {directory} ended without an outcome; see ray logs")
        )
    outcome: Outcome = pickle.loads(packed)
    return outcome


def _torch_trainer(loop: TrainLoop, workers: Workers, max_failures: int) -> TorchTrainer:
    return TorchTrainer(
        work,
        train_loop_config={"loop": loop},
        torch_config=TorchConfig(backend="nccl" if workers.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.most if workers.least == workers.most else (workers.least, workers.most),
            use_gpu=workers.gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=ray.train.RunConfig(
            name=loop.directory.name,
            storage_path=str(loop.directory / "ray"),
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=CONTROLLER_FAILURES),
        ),
    )


def _fit(trainer: TorchTrainer, failed: list[BaseException]) -> None:
    try:
        trainer.fit()
    except Exception as error:
        failed.append(error)


def work(given: dict[str, TrainLoop]) -> None:
    """What each worker does: the same trainer, as one process of a group."""
    loop, group = given["loop"], ProcessGroup.of_this_process()
    torch.set_num_threads(loop.threads)
    splits = load_splits(loop.config.data)
    trainer = Trainer(
        loop.config,
        splits.train,
        splits.validation,
        device=get_device(),
        directory=loop.directory,
        checkpoint_policy=loop.checkpoint_policy,
        group=group,
    )
    notice = PreemptionNotice(ray.train.get_preemption_info)
    if group.rank > 0:
        trainer.run(should_save=notice)
        return
    queue = loop.queue
    for record in trainer.history:
        queue.put.remote("epoch", pickle.dumps(record))
    outcome = trainer.run(
        on_epoch=lambda record: queue.put.remote("epoch", pickle.dumps(record)),
        on_step=lambda *counts: queue.put.remote("step", pickle.dumps(counts)),
        should_stop=_StopSignal(queue),
        should_save=notice,
    )
    ray.get(queue.end.remote(pickle.dumps(outcome)))


class PreemptionNotice:
    """Whether a machine of the workers was announced to be taken away since this was last asked.

    Ray asks all workers together, which costs a round trip through its control: so only before every few batches.
    """

    def __init__(self, ask: Callable[[], PreemptionInfo | None]) -> None:
        """Begin with no notice.

        Args:
            ask: Ray's question, which every worker must ask equally often.
        """
        self._ask, self._calls = ask, 0
        self._seen: PreemptionInfo | None = None

    def __call__(self) -> bool:
        """True once for every notice."""
        self._calls += 1
        if self._calls % NOTICE_BATCHES != 1:
            return False
        info = self._ask()
        if info is None or info == self._seen:
            return False
        self._seen = info
        return True


class _StopSignal:
    """Whether the driver has asked to stop; the question does not wait for the answer."""

    def __init__(self, queue: Any) -> None:
        self._queue, self._answer, self._wanted = queue, queue.stopped.remote(), False

    def __call__(self) -> bool:
        ready, _ = ray.wait([self._answer], timeout=0)
        if ready:
            self._wanted = self._wanted or bool(ray.get(self._answer))
            self._answer = self._queue.stopped.remote()
        return self._wanted


def cause_of(error: BaseException) -> ColoTrideError:
    """The trainer's own error behind one of Ray Train's, or one line of what Ray says."""
    causes = [error]
    while causes:
        current = causes.pop()
        if isinstance(current, ColoTrideError):
            return current
        with contextlib.suppress(AttributeError):
            causes += getattr(current, "worker_failures", {}).values()
        causes += [
            inner for inner in (getattr(current, "cause", None), current.__cause__) if isinstance(inner, BaseException)
        ]
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return WorkerError(f"the workers failed for good ({lines[-1].strip() if lines else type(error).__name__})")
