"""Options of `colotride query`."""

from pathlib import Path
from typing import Annotated, ClassVar

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT, Count, Device, EmbedderSpec, Json, Plugins, Trust


class Query(Options):
    """Find the pictures that are most similar to one picture."""

    command: ClassVar = "query"
    examples: ClassVar = (
        "cat.jpg --model runs/first --gallery photos/ --index photos.index",
        "cat.jpg --model runs/first --index photos.index -k 10",
    )

    picture: Annotated[Path, Option(WHAT, "PICTURE", positional=True)]
    """The picture to search with."""
    model: EmbedderSpec
    trust: Trust = False
    plugin: Plugins = ()
    gallery: Annotated[Path | None, Option(WHAT, "FOLDER")] = None
    """Folder of pictures to search, with its subfolders."""
    index: Annotated[Path | None, Option(WHAT, "FILE")] = None
    """Index of an earlier search; with --gallery it is written there."""
    results: Annotated[Count, Option(OUTPUT, alias="-k")] = 5
    """How many pictures to show."""
    device: Device = "auto"
    as_json: Json = False
