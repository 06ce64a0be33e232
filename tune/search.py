"""The command `colotride search` in a checkout: python tune/search.py --help."""

from colotride.cli.options import run
from colotride.cli.search import main

if __name__ == "__main__":
    run(main)
