"""One seed, many streams.

Every draw comes from a stream named by its purpose and position ("mining", epoch, step). Streams do not depend on
which others were used before, which is what makes an interrupted run resume exactly and lets any step be recomputed.
"""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose of a run.

    Args:
        seed: the run's.
        purpose: what the stream is for and where, such as ("mining", 3, 17).
    """
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose of a run; see `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
