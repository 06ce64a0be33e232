"""The command `colotride leaderboard` in a checkout: python scripts/leaderboard.py --help."""

from colotride.cli.leaderboard import main
from colotride.cli.options import run

if __name__ == "__main__":
    run(main)
