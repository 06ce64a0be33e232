"""What a trial needs, how many trials fit on the machines, and where the trials keep their folders."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from colotride.distributed.ray_train import Workers
from colotride.errors import SearchError
from colotride.training.run_directory import CheckpointPolicy

DRIVER_CPUS = 0.01
"""CPU of a process that only drives workers of its own; Ray refuses 0."""


@dataclass(frozen=True)
class TrialResources:
    """What one trial needs, and how many run at once."""

    cpus: int = 1
    """Of the trial, or of each of its workers; also the threads of torch."""
    gpus: float = 0.0
    """Of the trial, or of each of its workers. A fraction packs several trials onto one GPU."""
    concurrent: int | None = None
    """At most this many trials at once; None for as many as fit."""
    workers_per_trial: int = 1
    """Ray Train's; a trial with one trains in its own process."""
    device: str = "cpu"
    """Where a trial computes: cpu, cuda, or auto for a GPU where the trial has one."""
    memory: int = 0
    """Bytes of a machine's memory that a trial needs; 0 where nobody measured it."""
    capped: bool = False
    """Whether a trial may not use more of a GPU than its share, so that it cannot take what another one needs."""
    beside: float = 0.0
    """Share of a GPU that a process takes beside what the allocator counts, and the cap therefore cannot bound."""

    @property
    def workers(self) -> Workers | None:
        """Of each trial; None where it trains in its own process."""
        if self.workers_per_trial == 1:
            return None
        return Workers(self.workers_per_trial, self.workers_per_trial, self.gpus > 0, self.cpus)

    def request(self, *, exclusive: bool = False) -> dict[str, float]:
        """What Ray reserves for a trial's own process, by Ray's names.

        Args:
            exclusive: whole GPUs, for a trial that must share them with no other.
        """
        if self.workers_per_trial > 1:
            return {"CPU": DRIVER_CPUS}
        gpus = float(math.ceil(self.gpus)) if exclusive else self.gpus
        return {"CPU": float(self.cpus), "GPU": gpus} | ({"memory": float(self.memory)} if self.memory else {})

    def limit(self, *, exclusive: bool) -> None:
        """Keep this process within its share of the GPU, by the limit of CUDA's own allocator."""
        if self.capped and 0 < self.gpus < 1 and torch.cuda.is_available():
            # A process that has run a capped trial before keeps its cap until it is told otherwise.
            torch.cuda.set_per_process_memory_fraction(1.0 if exclusive else max(0.0, self.gpus - self.beside))


@dataclass(frozen=True)
class SearchFolders:
    """Where a search keeps what it trains."""

    root: Path
    """Folder of the search. All machines see it, unless there is `storage`."""
    storage: str | None = None
    """URI of the second copy of everything that is trained below it."""

    def trial(self, number: int) -> tuple[Path, CheckpointPolicy]:
        """The folder of one trial, and how its checkpoints are kept."""
        folder = self.root / "trials" / f"{number:03d}"
        return folder, self.policy(folder)

    def policy(self, folder: Path) -> CheckpointPolicy:
        """How the checkpoints of a run below the root are kept."""
        place = folder.relative_to(self.root).as_posix()
        return CheckpointPolicy(storage=None if self.storage is None else f"{self.storage}/{place}")


def capacity(resources: TrialResources, offered: Sequence[Mapping[str, float]], unit: str = "trial") -> int:
    """How many trials fit at once.

    A trial with workers counts with all of them and with the process that drives it, so that two trials never wait
    for each other's workers.

    Args:
        resources: of one trial.
        offered: by machine; see `machines`.
        unit: what the options of the command end in: `--cpus-per-trial`, or "run" for `--cpus-per-run`.

    Raises:
        SearchError: not even one trial fits, or a request makes no sense.
    """
    _check(resources, offered, unit)
    if resources.workers is None:
        room = sum(_room(machine, resources) for machine in offered)
    else:
        # The process that drives a trial stands beside its workers and takes the last whole core of a machine.
        spare = [{**machine, "CPU": machine.get("CPU", 0.0) - DRIVER_CPUS} for machine in offered]
        room = sum(map(resources.workers.room, spare)) // resources.workers_per_trial
        if room < 1:
            raise SearchError(
                f"--workers-per-{unit} {resources.workers_per_trial} with {resources.cpus} CPUs each and "
                f"{DRIVER_CPUS:g} CPU that drives them do not fit on the machines here; ask for fewer"
            )
    return min(room, resources.concurrent or room)


def _check(resources: TrialResources, offered: Sequence[Mapping[str, float]], unit: str) -> None:
    if resources.concurrent is not None and resources.concurrent < 1:
        raise SearchError(f"--concurrent {resources.concurrent} runs nothing; give 1 or more")
    if resources.workers_per_trial < 1:
        raise SearchError(f"--workers-per-{unit} {resources.workers_per_trial} trains nothing; give 1 or more")
    if resources.cpus < 1:
        raise SearchError(f"--cpus-per-{unit} {resources.cpus} is too few; give 1 or more")
    if not 0 <= resources.gpus < math.inf:
        raise SearchError(f"--gpus-per-{unit} {resources.gpus:g} is not a number of GPUs; give 0 or more")
    most_memory = max((machine.get("memory", math.inf) for machine in offered), default=math.inf)
    if resources.memory > most_memory:
        raise SearchError(
            f"one {unit} needs {resources.memory / 2**30:.1f} GiB of memory and no machine has more than "
            f"{most_memory / 2**30:.1f} to give; give smaller batches with --run.data.pairs-per-batch"
        )
    if resources.workers_per_trial > 1 and resources.gpus not in (0, 1):
        raise SearchError(
            f"--gpus-per-{unit} {resources.gpus:g} with several workers: each has no GPU or one; give 0 or 1"
        )
    for kind, count in (("CPU", float(resources.cpus)), ("GPU", resources.gpus)):
        most = max((machine.get(kind, 0.0) for machine in offered), default=0.0)
        if count > most:
            raise SearchError(
                f"--{kind.lower()}s-per-{unit} {count:g} is more than any machine here has ({most:g}); ask for less"
            )


def _room(machine: Mapping[str, float], resources: TrialResources) -> int:
    counts = [math.floor(machine.get("CPU", 0.0) / resources.cpus)]
    if resources.memory and "memory" in machine:
        counts.append(math.floor(machine["memory"] / resources.memory))
    if resources.gpus > 0:
        gpus, each = machine.get("GPU", 0.0), resources.gpus
        # A fraction of a GPU lies on one GPU: 0.4 does not fit three times on one, though two would hold five in sum.
        counts.append(math.floor(gpus / each) if each >= 1 else int(gpus) * math.floor(1 / each + 1e-9))
    return min(counts)
