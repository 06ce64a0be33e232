"""Options of `colotride search`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from colotride.cli.arguments import Option
from colotride.cli.options.shared import (
    MACHINE,
    OUTPUT,
    Count,
    Device,
    Gpus,
    Json,
    RunOptions,
    Seed,
    Share,
    Storage,
    TrackingURI,
)
from colotride.names import Name
from colotride.settings import NumberRange

METHOD = "search"
"""Heading of the help."""


class Search(RunOptions):
    """Search for a better configuration, and compare it with the default on the test classes."""

    command: ClassVar = "search"
    examples: ClassVar = (
        "--dataset cub --data-root ~/data --trials 40 --gpus-per-trial 0.25",
        "--objective r1,ars --sampler nsga2 --groups margins learning-rate",
        "--resume digits-20261123-120000",
    )

    trials: Annotated[Count | None, Option(METHOD)] = None
    """Configurations to try (default: 32, or what the resumed search had)."""
    max_cost: Annotated[float | None, Field(gt=0), Option(METHOD, rare=True)] = None
    """End a trial after this many millions of image passes, so that configurations are compared at equal cost."""
    max_epochs: Annotated[Count | None, Option(METHOD, rare=True)] = None
    """Begin no new trial once all trials together have trained this many epochs."""
    groups: Annotated[tuple[str, ...], Option(METHOD, "GROUP")] = ()
    """Search more: margins, learning-rate, ... A wrong name lists them all."""
    space: Annotated[Path | None, Option(METHOD, "FILE")] = None
    """YAML file that narrows, fixes, removes or adds parameters. docs/how-to/search-space.md shows its form."""
    start_from: Annotated[tuple[Path, ...], Option(METHOD, "PATH", rare=True)] = ()
    """Try these first, after the default: a search's folder (its best), a run's folder or a YAML configuration."""
    objective: Annotated[str, Option(METHOD)] = "ars"
    """ars, ers, r1, map, or several for a Pareto front: r1,ars (default: ars). Measured on held-out training classes."""
    sampler: Annotated[Literal["tpe", "gp", "nsga2", "random"], Option(METHOD, "NAME")] = "tpe"
    """tpe, gp, nsga2 or random. tpe is multivariate with a constant liar, gp a Gaussian process; nsga2 is for several
    objectives."""
    stopping: Annotated[Literal["asha", "median", "none"] | None, Option(METHOD, "NAME")] = None
    """asha, median or none (default: asha; none for several objectives). How bad trials are ended early."""
    first_share: Annotated[Share, Option(METHOD, rare=True)] = 0.5
    """Share of the validation's queries and PGD steps in the first epoch, growing to all of them in the last one;
    1 with --max-cost."""
    seed: Annotated[Seed, Option(METHOD, rare=True)] = 0
    """Seed of the sampler; --run.seed is the one of the trials."""
    deterministic: Annotated[bool, Option(METHOD, rare=True)] = False
    """The same seed gives the same search with several trials at once; a slow trial may then leave others waiting."""
    race: Annotated[int, Field(ge=0), Option(METHOD, "N", rare=True)] = 3
    """Repeat the best N trials with further seeds before the verdict; 0 for none. They are at most a quarter of all."""
    race_seeds: Annotated[Count, Option(METHOD, rare=True)] = 2
    """Further seeds of the race."""
    verdict: Annotated[bool, Option(METHOD)] = True
    """Do not compare the best with the default on the test classes."""
    top: Annotated[Count, Option(METHOD, rare=True)] = 1
    """How many of the best configurations the verdict judges."""
    verdict_seeds: Annotated[NumberRange, Option(METHOD, "N|N:M", rare=True)] = "3:6"
    """Seeds per configuration of the verdict. With N:M it adds seeds to N, up to M, while the difference is within the
    noise."""
    resume: Annotated[Name | None, Option(METHOD, "NAME")] = None
    """Continue an interrupted search. Every choice of its first call stays, unless it is given again."""
    device: Device = "auto"
    concurrent: Annotated[Count | None, Option(MACHINE)] = None
    """Trials at once (default: as many as the machines hold)."""
    cpus_per_trial: Annotated[Count, Option(MACHINE)] = 1
    """CPU cores of one trial. Or of each of its workers."""
    gpus_per_trial: Annotated[Gpus | Literal["auto"], Option(MACHINE, "N")] = 0.0
    """GPUs of one trial, 0.25 packs four onto one, auto measures. Without a GPU, auto packs trials by the machine's
    memory. With workers it is the number of each."""
    workers_per_trial: Annotated[Count, Option(MACHINE, rare=True)] = 1
    """Train each trial with this many of Ray's workers."""
    name: Annotated[Name | None, Option(OUTPUT)] = None
    """Name of the search, and of its folder (default: <data set>-<date>)."""
    results: Annotated[Path, Option(OUTPUT, "DIR")] = Path("runs/search")
    """Folder above the search's own."""
    storage: Storage = None
    tracking_uri: TrackingURI = None
    as_json: Json = False
