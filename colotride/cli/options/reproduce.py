"""Options of `colotride reproduce`."""

from pathlib import Path
from typing import Annotated, ClassVar

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import (
    BUDGET,
    MACHINE,
    OUTPUT,
    WHAT,
    Count,
    DataRoot,
    Dataset,
    Device,
    Gpus,
    Plugins,
    TrackingURI,
)


class Reproduce(Options):
    """Train and evaluate the rows of a table or figure of the paper; repeated, it continues."""

    command: ClassVar = "reproduce"
    examples: ClassVar = (
        "table1 --dataset cub --data-root ~/data --gpus-per-run 1",
        "table4 --dataset digits --seeds 3",
        "figure3 --dataset fashion-mnist --epochs 8 --pairs-per-epoch 768",
    )

    what: Annotated[str, Option(WHAT, positional=True)] = "table1"
    """table1 to table4, figure3, figure4, appendix-a, evidence, readings, improvements. Evidence compares all kinds of
    defenses, readings COLO-TRIDE under its disputed formulas, improvements what might make it more robust."""
    seeds: Annotated[Count, Option(WHAT)] = 1
    """Runs per row. With several the table shows mean and standard deviation."""
    plugin: Plugins = ()
    dataset: Dataset = "digits"
    data_root: DataRoot = None
    epochs: Annotated[Count | None, Option(BUDGET)] = None
    """Epochs (default: the data set's)."""
    pairs_per_epoch: Annotated[Count | None, Option(BUDGET)] = None
    """Pairs per epoch (default: every training image once)."""
    pairs_per_batch: Annotated[Count | None, Option(BUDGET)] = None
    """Pairs per batch (default: the data set's)."""
    queries: Annotated[Count | None, Option(BUDGET)] = None
    """Images attacked per attack (default: all)."""
    attack_steps: Annotated[Count | None, Option(BUDGET)] = None
    """PGD steps of the evaluation's attacks (default: the data set's)."""
    device: Device = "auto"
    concurrent: Annotated[Count | None, Option(MACHINE)] = None
    """Runs at once (default: as many as the machine holds)."""
    cpus_per_run: Annotated[Count, Option(MACHINE)] = 1
    """CPU cores of one run."""
    gpus_per_run: Annotated[Gpus, Option(MACHINE)] = 0.0
    """GPUs of one run."""
    results: Annotated[Path, Option(OUTPUT, "DIR")] = Path("runs/reproduce")
    """Where runs, tables and figures go."""
    tracking_uri: TrackingURI = None
