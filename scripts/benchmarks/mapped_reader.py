"""A process that reads all of an image store and then waits to be measured, until its input ends."""

import sys
from pathlib import Path

import torch

from colotride.data.cache import CachedImages


def main() -> None:
    """Read the store that the first argument names, in batches of the second; say so; wait."""
    images = CachedImages(Path(sys.argv[1]))
    for indices in torch.arange(len(images)).split(int(sys.argv[2])):
        images.pixels(indices)
    print("read", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
