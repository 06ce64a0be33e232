"""The command `colotride reproduce` in a checkout: python scripts/reproduce.py --help.

`python scripts/reproduce.py tournament ...` is `colotride tournament ...`.
"""

import sys

from colotride.cli.main import run

if __name__ == "__main__":
    first, *others = sys.argv[1:] or [""]
    run("tournament", others) if first == "tournament" else run("reproduce")
