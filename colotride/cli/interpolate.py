"""Make a model between two that were trained from the same start, by interpolating their weights.

Examples:
    colotride interpolate runs/natural runs/robust --share 0.5 --directory runs/between
"""

from colotride.cli.options.interpolate import Interpolate
from colotride.markdown import printable
from colotride.training.interpolation import interpolate


def main(options: Interpolate) -> int:
    """Write the model, and print where it is."""
    folder = printable(str(interpolate(options.first, options.second, options.share, options.directory)))
    print(f"Written: {folder}")
    print(f"Evaluate with: colotride evaluate --model {folder}")
    return 0
