"""Options of `colotride train`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from colotride.cli.arguments import Option
from colotride.cli.options.shared import (
    BUDGET,
    MACHINE,
    OUTPUT,
    Count,
    Device,
    RunOptions,
    Storage,
    Track,
    TrackingURI,
)
from colotride.settings import NumberRange


class Train(RunOptions):
    """Train one model; an interrupted run continues when the same command is given again."""

    command: ClassVar = "train"
    examples: ClassVar = (
        "--dataset digits --directory runs/first",
        "--dataset cub --data-root ~/data --run.pgd.epsilon 4/255",
        "--dataset folder --data-root photos --recipe real-photos",
        "--dataset sop --workers 2:8 --gpu --storage s3://bucket/runs/sop-1",
    )

    epochs: Annotated[Count | None, Option(BUDGET)] = None
    """Epochs of training (default: the data set's)."""
    seed: Annotated[int | None, Field(ge=0, lt=2**32), Option(BUDGET)] = None
    """Seed of all randomness (default: 0)."""
    device: Device = "auto"
    workers: Annotated[NumberRange | None, Option(MACHINE, "N|N:M")] = None
    """Train on N of Ray's workers, or N to M as there is room. The batch is divided among them. Ray is started on
    this machine, or joined where RAY_ADDRESS says."""
    gpu: Annotated[bool, Option(MACHINE)] = False
    """Give every worker a GPU."""
    cpus_per_worker: Annotated[Count | None, Option(MACHINE, rare=True)] = None
    """CPU cores of a worker (default: an equal share of this machine's)."""
    max_failures: Annotated[int, Field(ge=-1), Option(MACHINE, rare=True)] = 3
    """How often workers that failed are started again; -1 for any number of times."""
    directory: Annotated[Path | None, Option(OUTPUT, "DIR")] = None
    """The run's folder; a run in it is resumed (default: one below runs/)."""
    checkpoint_minutes: Annotated[float | None, Field(gt=0), Option(OUTPUT, rare=True)] = None
    """Also write a checkpoint whenever this many minutes have passed, not only after every epoch."""
    keep_checkpoints: Annotated[Count, Option(OUTPUT, rare=True)] = 2
    """How many of the newest checkpoints remain."""
    storage: Storage = None
    track: Track = True
    tracking_uri: TrackingURI = None
