"""Make a Markdown table of a leaderboard file.

Examples:
    colotride evaluate --model runs/first --leaderboard results.jsonl
    colotride leaderboard results.jsonl
"""

import json

from colotride.cli.options.leaderboard import Leaderboard
from colotride.evaluation.leaderboard import read, tables


def main(command: Leaderboard) -> int:
    """Print the tables."""
    entries = read(command.file)
    print(json.dumps([entry.model_dump() for entry in entries]) if command.as_json else tables(entries).rstrip())
    return 0
