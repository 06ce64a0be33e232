"""The command `colotride train` in a checkout: python scripts/train.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("train")
