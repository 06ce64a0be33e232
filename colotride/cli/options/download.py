"""Options of `colotride download`."""

import os
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT, Count


class Download(Options):
    """Fetch a public data set and decode its images once; the same command continues an interrupted one."""

    command: ClassVar = "download"
    examples: ClassVar = (
        "cub --data-root ~/data",
        "cars --data-root ~/data --mirror https://files.example.org/cars196",
        "folder --data-root ~/photos --verify",
    )

    dataset: Annotated[
        Literal["fashion-mnist", "cub", "cars", "sop", "folder", "manifest"], Option(WHAT, "DATASET", positional=True)
    ]
    """fashion-mnist, cub, cars, sop; folder and manifest are your own images, which are decoded only."""
    data_root: Annotated[str, Option(WHAT, "DIR")] = Field(
        default_factory=lambda: os.environ.get("COLOTRIDE_DATA") or "data"
    )
    """Their folder; of your own, the folder or table (default: $COLOTRIDE_DATA or data)."""
    mirror: Annotated[str | None, Option(WHAT, "URL")] = None
    """Fetch the archives from below this address. They have their own names there."""
    keep_archives: Annotated[bool, Option(OUTPUT)] = False
    """Keep the archives after they are unpacked."""
    stored_size: Annotated[Count | None, Option(OUTPUT)] = None
    """Side in pixels at which images are stored (default: the data set's, 256 for photographs)."""
    verify: Annotated[bool, Option(OUTPUT)] = False
    """Compare what was stored before with its checksum, and make it again when they differ."""
    push: Annotated[str | None, Option(OUTPUT, "URI")] = None
    """Copy the stored images to s3://..., gs://... or file://..., a --data-root for any node."""
