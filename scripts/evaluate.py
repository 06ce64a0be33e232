"""The command `colotride evaluate` in a checkout: python scripts/evaluate.py --help."""

from colotride.cli.evaluate import main
from colotride.cli.options import run

if __name__ == "__main__":
    run(main)
