"""The command `colotride evaluate` in a checkout: python scripts/evaluate.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("evaluate")
