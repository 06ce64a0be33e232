"""The command `colotride sync` in a checkout: python scripts/sync.py --help."""

from colotride.cli.options import run
from colotride.cli.sync import main

if __name__ == "__main__":
    run(main)
