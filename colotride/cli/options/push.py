"""Options of `colotride push`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import OUTPUT, WHAT

Line = Annotated[str, Field(max_length=200)]


class Push(Options):
    """Publish a run with its scores and a model card, on the Hugging Face hub or in a folder."""

    command: ClassVar = "push"
    examples: ClassVar = (
        "runs/first hf://me/first --name First --license apache-2.0",
        "runs/first published/",
    )

    run: Annotated[Path, Option(WHAT, "DIR", positional=True)]
    """Folder of the run, which colotride evaluate has evaluated."""
    to: Annotated[str, Option(WHAT, "TO", positional=True)]
    """hf://USER/NAME, or a new folder."""
    name: Annotated[Line | None, Option(WHAT, "TEXT")] = None
    """What the card calls the model (default: the run's folder)."""
    licence: Annotated[
        str, Option(WHAT, "ID", name="--license", alias="--licence"), Field(pattern=r"^[a-z0-9.-]{2,60}$")
    ] = "other"
    """Licence of the weights, by the hub's identifier, such as apache-2.0."""
    authors: Annotated[Line, Option(WHAT, "TEXT")] = ""
    """Whose the model is."""
    private: Annotated[bool, Option(OUTPUT)] = False
    """A new repository is for its owner alone."""
