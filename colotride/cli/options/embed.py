"""Options of `colotride embed`."""

from pathlib import Path
from typing import Annotated, ClassVar

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT, Device, EmbedderSpec, Json, Plugins, Trust


class Embed(Options):
    """Embed the pictures of a folder with a trained model, and write one row per picture."""

    command: ClassVar = "embed"
    examples: ClassVar = ("photos/ --model runs/first --out embeddings.parquet",)

    folder: Annotated[Path, Option(WHAT, "FOLDER", positional=True)]
    """Folder of pictures, searched with its subfolders."""
    model: EmbedderSpec
    trust: Trust = False
    plugin: Plugins = ()
    device: Device = "auto"
    out: Annotated[Path, Option(OUTPUT, "FILE")] = Path("embeddings.parquet")
    """A table (.parquet) of path and embedding, or a .npy array in the order of the paths."""
    as_json: Json = False
