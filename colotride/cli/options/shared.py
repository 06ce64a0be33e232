"""Options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from colotride.cli.arguments import Option, Options, SettingsOptions
from colotride.settings import Fraction
from colotride.tracking.addresses import TRACKING

Count = Annotated[int, Field(ge=1)]
Share = Annotated[Fraction, Field(gt=0, le=1)]
Gpus = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

WHAT, BUDGET, MACHINE, OUTPUT = "what", "budget", "machine", "output"
"""Headings of the help."""

STORAGE = ("s3://", "gs://", "gcs://", "abfs://", "abfss://", "hdfs://", "file:///")
"""How the address of storage begins that pyarrow knows."""

NAMES = "digits, fashion-mnist, cub, cars, sop, or your own: folder, manifest"


def _device(name: str) -> str:
    kind, colon, number = name.partition(":")
    if kind in ("auto", "cpu", "mps") and not colon:
        return name
    if kind == "cuda" and (not colon or number.isdigit()):
        return name
    raise ValueError("should be auto, cpu, cuda, cuda:1 or mps")


Device = Annotated[
    str,
    AfterValidator(_device),
    Option(MACHINE, "NAME"),
    Field(description="auto, cpu, cuda, cuda:1 or mps"),
]
DataRoot = Annotated[
    str | None,
    Option(WHAT, "DIR"),
    Field(description="Their folder; of your own, the folder or table (default: $COLOTRIDE_DATA or data)."),
]
Dataset = Annotated[
    str,
    Option(WHAT, "NAME", alias="--preset"),
    Field(description=f"{NAMES}."),
]
Config = Annotated[
    Path | None,
    Option(WHAT, "FILE"),
    Field(description="YAML configuration to begin from instead (config.yaml, best.yaml)."),
]
DefenseName = Annotated[
    str | None,
    Option(WHAT, "NAME"),
    Field(
        description="natural, act, est, ... with its authors' settings (default: colo-tride). A wrong name lists all."
    ),
]
Reading = Annotated[
    Literal["paper", "released"] | None,
    Option(WHAT, "NAME", rare=True),
    Field(description="COLO-TRIDE as the paper describes it, or as the released code trains (default: paper)."),
]
Recipe = Annotated[
    str | None,
    Option(WHAT, "NAME", rare=True),
    Field(
        description="Settings for a task: real-photos fine-tunes a small ImageNet network on photographs of 64 px, in "
        "half an hour on a core."
    ),
]
Quick = Annotated[
    bool,
    Option(WHAT),
    Field(description="Minutes, for a first look: few epochs, images and PGD steps."),
]
Plugins = Annotated[
    tuple[str, ...],
    Option(WHAT, "MODULE", rare=True),
    Field(description="Import these modules first; they register your own defenses, attacks, losses or data sets."),
]


def _tracking_uri(uri: str | None) -> str | None:
    if uri is not None and not uri.startswith(TRACKING):
        raise ValueError("should be a store of MLflow, such as sqlite:///FILE or http://HOST:PORT")
    return uri


def _storage(uri: str | None) -> str | None:
    if uri is not None and not uri.startswith(STORAGE):
        raise ValueError("should be s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH")
    return uri


TrackingURI = Annotated[
    str | None,
    AfterValidator(_tracking_uri),
    Option(OUTPUT, "URI", rare=True),
    Field(description="MLflow store (default: $MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)."),
]
Track = Annotated[bool, Option(OUTPUT), Field(description="Do not record the run in MLflow.")]
Storage = Annotated[
    str | None,
    AfterValidator(_storage),
    Option(OUTPUT, "URI", rare=True),
    Field(
        description="Keep second copies of the checkpoints there: s3://..., gs://..., file:///.... "
        "A run whose folder is gone starts from it; needed where machines share no disk."
    ),
]
Json = Annotated[bool, Option(OUTPUT, name="--json"), Field(description="Print JSON instead of a table.")]
ModelSpec = Annotated[
    str,
    Option(WHAT, "MODEL"),
    Field(
        description="A run's folder, timm:NAME, open_clip:NAME, .pt, .pt2, module:function, MLflow URI. The function returns a "
        "torch.nn.Module; .pt is TorchScript, .pt2 an exported program; URIs are models:/... or runs:/..."
    ),
]
EmbedderSpec = Annotated[
    str,
    Option(WHAT, "MODEL"),
    Field(
        description="A run's folder, a .pt or .pt2 file, or module:function. The function returns a torch.nn.Module; "
        ".pt is TorchScript, .pt2 an exported program."
    ),
]
Trust = Annotated[
    bool,
    Option(WHAT, rare=True),
    Field(
        description="Load a model that can run any code of whoever made it: a pickle, as in MLflow, or a .pt2 file that "
        "is more than operators and weights."
    ),
]


class RunOptions(SettingsOptions):
    """Base of commands that train: the options that describe a run, from which `run_config` makes its configuration."""

    lists_settings: ClassVar[bool] = True

    dataset: Dataset = "digits"
    data_root: DataRoot = None
    config: Config = None
    recipe: Recipe = None
    defense: DefenseName = None
    reading: Reading = None
    plugin: Plugins = ()
    quick: Quick = False


class FolderOptions(Options):
    """Base of commands that embed the pictures of a folder."""

    folder: Annotated[Path, Option(WHAT, "FOLDER", positional=True)]
    """Folder of pictures, searched with its subfolders."""
    model: EmbedderSpec
    trust: Trust = False
    plugin: Plugins = ()
    device: Device = "auto"
