"""The command `colotride sync` in a checkout: python scripts/sync.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("sync")
