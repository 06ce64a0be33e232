"""Options of `colotride evaluate`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import (
    BUDGET,
    MACHINE,
    NAMES,
    OUTPUT,
    WHAT,
    Count,
    DataRoot,
    Device,
    Gpus,
    Json,
    ModelSpec,
    Plugins,
    Seed,
    Track,
    Trust,
)
from colotride.evaluation.strength_settings import BlackBoxAttack, Radius, Sigma, StrengthSettings
from colotride.names import Label
from colotride.settings import Fraction

_STRENGTH = StrengthSettings()


class Evaluate(Options):
    """Attack a model: benign metrics, ten attack scores, ERS and ARS, written with a report into a folder."""

    command: ClassVar = "evaluate"
    examples: ClassVar = (
        "--model runs/first --queries 200",
        "--model mypackage.models:net --dataset folder --data-root ~/photos --sanity",
    )

    model: ModelSpec
    trust: Trust = False
    weights: Annotated[str | None, Option(WHAT, "FILE", rare=True)] = None
    """Of a model by name: pretrained, none, a file (.safetensors, .pth), or a tag of open_clip's (default: pretrained)."""
    name: Annotated[Label | None, Option(WHAT, rare=True)] = None
    """What to call the model in the report and on the leaderboard (default: as given)."""
    plugin: Plugins = ()
    dataset: Annotated[str | None, Option(WHAT)] = Field(default=None, description=f"{NAMES} (default: the run's)")
    data_root: DataRoot = None
    image_size: Annotated[Count | None, Option(WHAT)] = None
    """Side in pixels that the model sees (default: the run's, or the model's own)."""
    queries: Annotated[Count | None, Option(BUDGET)] = None
    """Test images that are attacked (default: the run's setting, or all)."""
    steps: Annotated[Count | None, Option(BUDGET)] = None
    """PGD steps per attack (default: the run's setting)."""
    batch_size: Annotated[Count | None, Option(BUDGET, rare=True)] = None
    """Images per pass through the network (default: the run's)."""
    epsilon: Annotated[tuple[Annotated[Fraction, Field(ge=0)], ...], Option(BUDGET, "E")] = ()
    """Radius of the perturbation, as in 8/255; several draw a robustness curve (default: the run's)."""
    norm: Annotated[Literal["linf", "l2"] | None, Option(BUDGET, "NAME")] = None
    """How the radius is measured, linf or l2 (default: the run's). The largest change of a pixel, or the length of the
    change over all pixels."""
    step_size: Annotated[Fraction | None, Field(gt=0), Option(BUDGET, "S", rare=True)] = None
    """Step size in pixel units (default: the run's, in proportion to the radius)."""
    protocol: Annotated[Literal["strict", "published", "strong"] | None, Option(BUDGET, "NAME")] = None
    """strict, published or strong (default: the run's). Attacks as they are defined, with the weaknesses of the code behind
    the papers' numbers, or the worst case over an ensemble of parameter-free attacks at twice the cost."""
    seed: Annotated[Seed, Option(BUDGET, rare=True)] = 0
    """Which queries and targets are drawn."""
    extra_attacks: Annotated[tuple[str, ...], Option(BUDGET, rare=True)] = ()
    """Registered attacks of your own to run besides the nine; see --plugin."""
    sanity: Annotated[bool, Option(BUDGET)] = False
    """Also check whether the attacks can be trusted."""
    surrogate: Annotated[str | None, Option(BUDGET, "MODEL", rare=True)] = None
    """Another model, given as --model is, for the transfer attack of --black-box and for that of --sanity."""
    black_box: Annotated[tuple[BlackBoxAttack, ...], Option(BUDGET, "A")] = ()
    """Also attack without gradients: square, nes, qair, transfer. The last one needs --surrogate."""
    calls: Annotated[int, Field(ge=3), Option(BUDGET, rare=True)] = _STRENGTH.calls
    """Images per query that an attack of --black-box may show to the model."""
    universal: Annotated[bool, Option(BUDGET, rare=True)] = False
    """Also train one perturbation for all images, on half of the queries."""
    poison: Annotated[Count | None, Option(BUDGET, "K", rare=True)] = None
    """Also insert this many perturbed images into the gallery."""
    certify: Annotated[tuple[Sigma, ...], Option(BUDGET, "S")] = ()
    """Also certify R@1 by randomised smoothing of this sigma. It is the standard deviation of the noise in pixel units."""
    certify_radii: Annotated[tuple[Radius, ...], Option(BUDGET, "R", rare=True)] = _STRENGTH.certify_radii
    """l2 lengths at which certified R@1 is reported."""
    certify_samples: Annotated[Count, Option(BUDGET, rare=True)] = _STRENGTH.certify_samples
    """Noisy images per query behind a certificate."""
    device: Device = "auto"
    workers: Annotated[Count, Option(MACHINE)] = 1
    """Processes, with Ray, that share the queries. The numbers are the same."""
    gpus_per_worker: Annotated[Gpus, Option(MACHINE)] = 0.0
    """GPUs of each worker."""
    resume: Annotated[bool, Option(OUTPUT)] = False
    """Take over what the same evaluation finished before it was interrupted."""
    example_queries: Annotated[int, Field(ge=0), Option(OUTPUT, rare=True)] = 6
    """Queries shown with their results in the report; 0 for none."""
    leaderboard: Annotated[Path | None, Option(OUTPUT, "FILE")] = None
    """Append the result to this file (JSON lines). `colotride leaderboard table` makes a table of it."""
    output: Annotated[Path | None, Option(OUTPUT, "DIR")] = None
    """Where the results go (default: evaluation/ in the run's folder). Of other models, runs/evaluation/NAME."""
    track: Track = True
    as_json: Json = False
