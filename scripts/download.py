"""The command `colotride download` in a checkout: python scripts/download.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("download")
