"""Options of `colotride demo`."""

from typing import Annotated, ClassVar

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import BUDGET, MACHINE, WHAT, Count, DataRoot, Device

PORT = 7860


class Demo(Options):
    """Show in a browser what an attack does to the results of one model, or of two side by side."""

    command: ClassVar = "demo"
    examples: ClassVar = ("--model runs/robust --against runs/natural",)

    model: Annotated[str, Option(WHAT, "DIR")]
    """Folder of a run, or hf://USER/NAME."""
    against: Annotated[str | None, Option(WHAT, "DIR")] = None
    """Another run on the same pictures, to stand beside it."""
    data_root: DataRoot = None
    pictures: Annotated[Count, Option(BUDGET)] = 1000
    """Pictures of the test classes to search, at most; classes are taken whole."""
    steps: Annotated[Count, Option(BUDGET)] = 16
    """PGD steps of each attack, a quarter of epsilon long."""
    host: Annotated[str, Option(MACHINE, "NAME", rare=True)] = "127.0.0.1"
    """Where to listen. Any other than this one shows the page to everybody who reaches the machine."""
    port: Annotated[int, Field(ge=0, le=65535), Option(MACHINE)] = PORT
    """Port to listen on; 0 for any that is free."""
    device: Device = "auto"
