"""Options of `colotride leaderboard`."""

from pathlib import Path
from typing import Annotated, ClassVar

from colotride.cli.arguments import Option, Options
from colotride.cli.options.shared import WHAT, Json


class Leaderboard(Options):
    """Print the evaluations of a file as Markdown tables, the most robust model first."""

    command: ClassVar = "leaderboard"
    examples: ClassVar = ("results.jsonl",)

    file: Annotated[Path, Option(WHAT, "FILE", positional=True)] = Path("leaderboard.jsonl")
    """JSON lines, as `colotride evaluate --leaderboard FILE` appends them."""
    as_json: Json = False
