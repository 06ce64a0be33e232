"""The command `colotride leaderboard` in a checkout: python scripts/leaderboard.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("leaderboard")
