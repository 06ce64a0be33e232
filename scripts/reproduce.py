"""The command `colotride reproduce` in a checkout: python scripts/reproduce.py --help."""

from colotride.cli.options import run
from colotride.cli.reproduce import main

if __name__ == "__main__":
    run(main)
