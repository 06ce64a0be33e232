"""The command `colotride download` in a checkout: python scripts/download.py --help."""

from colotride.cli.download import main
from colotride.cli.options import run

if __name__ == "__main__":
    run(main)
