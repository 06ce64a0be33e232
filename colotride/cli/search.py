"""Search for a better configuration: the search itself lies in `colotride.tune`."""

from colotride.tune.search import main

__all__ = ["main"]
