"""One seed, many streams.

Every draw comes from a stream named by its purpose and position ("mining", epoch, step). Streams do not depend on
which others were used before, which is what makes an interrupted run resume exactly and lets any step be recomputed.
"""

import hashlib

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


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


def hashed_uniform(seed: int, keys: Int64[Tensor, "keys"], count: int) -> Float64[Tensor, "keys count"]:
    """Uniform numbers in [0, 1), `count` for every key, which depend on seed and key alone.

    A generator hands out its numbers in order; here any row can be had without those before it, on any device, so that
    how a list of keys is cut into batches does not show. SplitMix64 (Steele et al., 2014) of the position.

    Args:
        seed: from `derive_seed`.
        keys: what the numbers are for, such as places in a gallery.
        count: numbers per key.
    """
    position = keys[:, None] * count + torch.arange(count, device=keys.device)
    # 64-bit integers wrap around; constants are SplitMix64's, as signed numbers.
    state = seed + (position + 1) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        state = (state ^ _shifted(state, shift)) * factor
    state = state ^ _shifted(state, 31)
    return _shifted(state, 11).double() / 2**53


def hashed_normal(seed: int, keys: Int64[Tensor, "keys"], count: int) -> Float64[Tensor, "keys count"]:
    """Standard normal numbers, `count` for every key; see `hashed_uniform`, whose numbers it turns by the inverse CDF."""
    # Half a step away from 0, where the inverse is infinite.
    return torch.special.ndtri(hashed_uniform(seed, keys, count) + 2.0**-54)


def _shifted(value: Int64[Tensor, "*shape"], bits: int) -> Int64[Tensor, "*shape"]:
    """Shift to the right with zeros from the left."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
