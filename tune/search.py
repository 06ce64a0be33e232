"""The command `colotride search` in a checkout: python tune/search.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("search")
