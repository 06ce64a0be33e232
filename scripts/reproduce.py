"""The command `colotride reproduce` in a checkout: python scripts/reproduce.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("reproduce")
