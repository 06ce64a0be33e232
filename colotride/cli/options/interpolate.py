"""Options of `colotride interpolate`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT


class Interpolate(Options):
    """Make a model between two that were trained from the same start, such as a natural and a robust one."""

    command: ClassVar = "interpolate"
    examples: ClassVar = ("runs/natural runs/robust --share 0.5 --directory runs/between",)

    first: Annotated[Path, Option(WHAT, "FIRST", positional=True)]
    """Folder of a run."""
    second: Annotated[Path, Option(WHAT, "SECOND", positional=True)]
    """Folder of another, whose configuration goes with the new model."""
    share: Annotated[float, Option(WHAT, "SHARE"), Field(ge=0, le=1)] = 0.5
    """Of the second model's weights: 0 is the first, 1 the second."""
    directory: Annotated[Path, Option(OUTPUT, "DIR")]
    """A new folder, which is a run to every command that takes a trained one."""
