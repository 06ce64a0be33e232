"""Make a Markdown table of a leaderboard file.

Examples:
    python scripts/evaluate.py --model runs/first --leaderboard results.jsonl
    python scripts/leaderboard.py results.jsonl
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from colotride.cli.options import parse
from colotride.evaluation.leaderboard import read, tables


@dataclass(frozen=True)
class Leaderboard:
    """Print the evaluations of a file as Markdown tables, the most robust model first."""

    file: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FILE")]] = Path("leaderboard.jsonl")
    """JSON lines, as scripts/evaluate.py --leaderboard appends them."""


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    print(tables(read(parse(Leaderboard, arguments, Leaderboard()).file)), end="")
    return 0
