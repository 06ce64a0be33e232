"""Measure speed, with the benchmarks of a checkout; they are no part of the wheel.

Examples:
    colotride benchmark step
    colotride benchmark scaling --workers 1 2
"""

import importlib
import sys
from pathlib import Path

from colotride.cli.options.benchmark import Benchmark
from colotride.errors import ConfigurationError

CHECKOUT = Path(__file__).resolve().parents[2]


def main(options: Benchmark) -> int:
    """Measure what the options ask for.

    Raises:
        ConfigurationError: ColoTride was installed without its repository.
    """
    if not (CHECKOUT / "scripts/benchmarks").is_dir():
        raise ConfigurationError(
            "the benchmarks are part of the repository; clone it and install it from there with pip install -e '.[all]'"
        )
    sys.path.insert(0, str(CHECKOUT))
    code: int = importlib.import_module("scripts.benchmarks.command").main(options)
    return code
