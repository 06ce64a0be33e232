"""Options of `colotride embed`."""

from pathlib import Path
from typing import Annotated, ClassVar

from colotride.cli.arguments import Option
from colotride.cli.options.shared import OUTPUT, FolderOptions, Json


class Embed(FolderOptions):
    """Embed the pictures of a folder with a trained model, and write one row per picture."""

    command: ClassVar = "embed"
    examples: ClassVar = ("photos/ --model runs/first --out embeddings.parquet",)

    out: Annotated[Path, Option(OUTPUT, "FILE")] = Path("embeddings.parquet")
    """A table (.parquet) of path and embedding, or a .npy array in the order of the paths."""
    as_json: Json = False
