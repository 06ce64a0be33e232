"""Options of `colotride index`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from colotride.cli.arguments import Option
from colotride.cli.options.shared import OUTPUT, FolderOptions, Json


class Index(FolderOptions):
    """Embed the pictures of a folder, and write an index that `colotride query` searches."""

    command: ClassVar = "index"
    examples: ClassVar = ("photos/ --model runs/first --out photos.index",)

    kind: Annotated[Literal["auto", "exact", "hnsw"], Option(OUTPUT)] = "auto"
    """exact compares a query with every picture; hnsw follows a graph of neighbours, which is faster and may miss some;
    auto is exact up to 100,000 pictures."""
    out: Annotated[Path, Option(OUTPUT, "FILE")] = Path("photos.index")
    """Where the index is written."""
    as_json: Json = False
