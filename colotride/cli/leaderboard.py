"""Make a Markdown table of a leaderboard file.

Examples:
    colotride evaluate --model runs/first --leaderboard results.jsonl
    colotride leaderboard results.jsonl
"""

import json

from colotride.cli.options.leaderboard import Leaderboard
from colotride.evaluation.leaderboard import markdown, read


def main(command: Leaderboard) -> int:
    """Print the tables."""
    entries = read(command.file)
    print(json.dumps(entries) if command.as_json else markdown(entries).rstrip())
    return 0
