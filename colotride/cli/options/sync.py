"""Options of `colotride sync`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT, Json


class Sync(Options):
    """Send to MLflow what could not be sent when it was measured.

    Each record goes to the store that it was begun in.
    """

    command: ClassVar = "sync"
    examples: ClassVar = ("runs/first", "runs/search/*")

    folders: Annotated[tuple[Path, ...], Option(WHAT, "FOLDER", positional=True)] = ()
    """Folders of runs or searches."""
    seconds: Annotated[float, Field(ge=0), Option(OUTPUT)] = 30.0
    """How long to wait for a store that is out of reach."""
    as_json: Json = False
