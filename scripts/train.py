"""The command `colotride train` in a checkout: python scripts/train.py --help."""

from colotride.cli.options import run
from colotride.cli.train import main

if __name__ == "__main__":
    run(main)
