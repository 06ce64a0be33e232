"""Options of `colotride tournament`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from colotride.cli.arguments import Option, SettingsOptions
from colotride.cli.options.shared import (
    BUDGET,
    MACHINE,
    OUTPUT,
    WHAT,
    Config,
    Count,
    DataRoot,
    Dataset,
    Device,
    Gpus,
    Json,
    Plugins,
    Quick,
    Recipe,
    Seed,
    TrackingURI,
)
from colotride.names import Name


class Tournament(SettingsOptions):
    """Search every defense at the same cost, retrain the best, and compare them. Repeated, it continues."""

    command: ClassVar = "tournament"
    examples: ClassVar = (
        "--dataset digits --trials 8 --seeds 3",
        "--dataset cub --data-root ~/data --defenses act hm --gpus-per-run 1",
        "--dataset folder --data-root photos --recipe real-photos --steps 16",
    )

    dataset: Dataset = "digits"
    data_root: DataRoot = None
    config: Config = None
    recipe: Recipe = None
    defenses: Annotated[tuple[str, ...], Option(WHAT, "NAME")] = ()
    """Who competes (default: colo-tride act hm naive). A wrong name lists all."""
    plugin: Plugins = ()
    quick: Quick = False
    cost: Annotated[float | None, Field(gt=0), Option(BUDGET)] = None
    """Millions of image passes of a run (default: what colo-tride takes in the data set's epochs)."""
    steps: Annotated[Count | None, Option(BUDGET)] = None
    """PGD steps of every defense (default: those that its authors use, 16 or 32)."""
    trials: Annotated[Count | None, Option(BUDGET)] = None
    """Configurations to try of each defense (default: 16)."""
    finalists: Annotated[Count | None, Option(BUDGET)] = None
    """How many of each are retrained, besides the defense as its authors use it (default: 3)."""
    seeds: Annotated[Count | None, Option(BUDGET)] = None
    """Runs of each finalist (default: 3)."""
    seed: Annotated[Seed, Option(BUDGET, rare=True)] = 0
    """Seed of the samplers."""
    device: Device = "auto"
    concurrent: Annotated[Count | None, Option(MACHINE)] = None
    """Runs at once (default: as many as the machines hold)."""
    cpus_per_run: Annotated[Count, Option(MACHINE)] = 1
    """CPU cores of one run."""
    gpus_per_run: Annotated[Gpus, Option(MACHINE)] = 0.0
    """GPUs of one run."""
    name: Annotated[Name | None, Option(OUTPUT)] = None
    """Name of the tournament, and of its folder (default: the data set's)."""
    results: Annotated[Path, Option(OUTPUT, "DIR")] = Path("runs/tournament")
    """Folder above the tournament's own."""
    tracking_uri: TrackingURI = None
    as_json: Json = False
