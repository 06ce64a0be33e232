"""`colotride reproduce` in a checkout; `python scripts/reproduce.py tournament ...` is `colotride tournament ...`."""

import sys

from colotride.cli.main import run

if __name__ == "__main__":
    run("tournament", sys.argv[2:]) if sys.argv[1:2] == ["tournament"] else run("reproduce")
