"""Measure speed as ratios, side by side in one process: python scripts/benchmark.py --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from colotride.cli.options import run
from scripts.benchmarks.command import main

if __name__ == "__main__":
    run(main)
