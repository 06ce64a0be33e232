"""The command `colotride benchmark` in a checkout: python scripts/benchmark.py --help."""

from colotride.cli.main import run

if __name__ == "__main__":
    run("benchmark")
