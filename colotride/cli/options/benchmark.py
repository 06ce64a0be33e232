"""Options of `colotride benchmark`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import BUDGET, MACHINE, OUTPUT, WHAT, Count, Device, Json


class Benchmark(Options):
    """Measure speed as ratios, side by side in one process."""

    command: ClassVar = "benchmark"
    examples: ClassVar = (
        "step",
        "step --device cuda --image-sizes 224 --precision bfloat16 --compile",
        "scaling --workers 1 2",
    )

    what: Annotated[
        Literal[
            "step",
            "profile",
            "robustness",
            "evaluation",
            "scaling",
            "search",
            "table",
            "engine",
            "index",
            "fine-tuning",
        ],
        Option(WHAT, "WHAT", positional=True),
    ] = "step"
    """step, profile, robustness, evaluation, scaling, search, table, engine, index or fine-tuning. Training steps against
    the textbook and against the limit; where a step's time goes; ARS against what perturbations cost; an evaluation
    against a loop over queries and against its network passes alone; several workers and loading; ways to search against
    each other; configurations on which searches are replayed; many trials that train nothing; both kinds of index; a
    ViT-S, trained whole and in part."""
    dataset: Annotated[Literal["digits", "fashion-mnist"], Option(WHAT, rare=True)] = "digits"
    """Whose table is measured or replayed; on which robustness is measured."""
    config: Annotated[Path | None, Option(WHAT, "FILE", rare=True)] = None
    """Measure robustness from this run's configuration instead (config.yaml)."""
    defenses: Annotated[tuple[str, ...], Option(WHAT, "NAME", rare=True)] = ("colo-tride", "act")
    """Whose robustness is measured."""
    data_root: Annotated[str | None, Option(WHAT, "DIR", rare=True)] = None
    """Folder of the data sets (default: $COLOTRIDE_DATA or data)."""
    replay: Annotated[bool, Option(WHAT, rare=True)] = False
    """Replay searches on a measured table, hundreds per method, instead of training."""
    surrogate: Annotated[bool, Option(WHAT, rare=True)] = False
    """Replay on a forest that is fitted to the table, which has values between its configurations."""
    table: Annotated[Path | None, Option(WHAT, "FILE", rare=True)] = None
    """Replay on this table (default: the one that comes with the project)."""
    image_sizes: Annotated[tuple[Count, ...], Option(WHAT, "N")] = (28, 64, 224)
    """Sides in pixels: 28 is the two-convolution net, others ResNet-18."""
    galleries: Annotated[tuple[Annotated[int, Field(ge=100)], ...], Option(WHAT, "N")] = (2000, 8000, 60000)
    """Images in the galleries of evaluation and index. The smallest is compared with a loop, 60,000 takes minutes."""
    queries: Annotated[Count, Option(BUDGET)] = 256
    """Attacked images of a whole evaluation."""
    triplets: Annotated[int, Field(ge=4), Option(BUDGET)] = 28
    """Triplets in a batch; at 224 px on a CPU 4, with 4 PGD steps."""
    steps: Annotated[Count, Option(BUDGET)] = 16
    """PGD steps."""
    trials: Annotated[Count, Option(BUDGET)] = 12
    """Trials of a search. Its budget is that they are all trained to the end."""
    seeds: Annotated[Count, Option(BUDGET)] = 5
    """Searches per method. Of a table and of robustness, trainings per configuration."""
    configurations: Annotated[Count, Option(BUDGET, rare=True)] = 200
    """Of a table. What was measured before is kept."""
    methods: Annotated[tuple[str, ...], Option(BUDGET, "NAME", rare=True)] = ()
    """Replay only these ways to search, or measure only these ways to perturb. A wrong name lists them all."""
    repetitions: Annotated[Annotated[int, Field(ge=2)], Option(BUDGET, rare=True)] = 300
    """Replayed searches per method, space and budget."""
    concurrent: Annotated[Count, Option(BUDGET, rare=True)] = 16
    """Trials at once of engine."""
    studies: Annotated[tuple[Count, ...], Option(BUDGET, "N", rare=True)] = (1000, 10000)
    """Trials at which engine times a study on disk."""
    rounds: Annotated[Count, Option(BUDGET)] = 2
    """Measured runs of everything."""
    workers: Annotated[tuple[Count, ...], Option(MACHINE, "N")] = (1, 2)
    """Numbers of workers of scaling; the first is what the others are compared with. Of table and robustness, the
    largest is the number of runs side by side."""
    device: Device = "auto"
    threads: Annotated[Count | None, Option(MACHINE)] = None
    """Threads of the processor (default: torch's)."""
    precision: Annotated[Literal["float32", "bfloat16"], Option(MACHINE)] = "float32"
    """Arithmetic of our network; the textbook is always float32."""
    compile: Annotated[bool, Option(MACHINE)] = False
    """Compile our perturbation."""
    cuda_graphs: Annotated[bool, Option(MACHINE, rare=True)] = False
    """Record a step of our perturbation as a CUDA graph, and replay it."""
    output: Annotated[Path, Option(OUTPUT, "DIR")] = Path("runs/benchmark")
    """Where the JSON and the chart go."""
    as_json: Json = False
