"""The processes that train one model together, and a batch divided among them.

Every process of a group holds the same model and computes the same scalars from the same global batch; only the passes
through the network are divided. Whatever a defense computes from a batch's distances (collapseness, the top-ranked
half, a loss) therefore sees the whole batch, and every process makes the same decisions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class ProcessGroup:
    """A group of processes, the size of torch.distributed's default group, or one process alone."""

    rank: int = 0
    """Of this process, from 0."""
    size: int = 1
    """Processes in the group."""

    @classmethod
    def of_this_process(cls) -> "ProcessGroup":
        """The default group of torch.distributed where it is initialised; else this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in one of the processes; all get the same answer."""
        if self.size == 1:
            return flag
        votes = torch.tensor(float(flag), device=device)
        dist.all_reduce(votes)
        return bool(votes)

    def all_reduce_sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating tensors by their sums over the processes, which have equal shapes: one all_gather."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def broadcast(self, value: Any) -> Any:
        """The value of the process of rank 0; the values of the others are ignored."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def all_gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank; plain values and CPU tensors."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


SINGLE_PROCESS = ProcessGroup()
"""A single process that trains alone."""


@dataclass(frozen=True)
class Shard:
    """The part of a batch that one process embeds: consecutive pairs; some processes have one more than others."""

    pairs: int
    """Pairs in the whole batch; at least as many as processes."""
    group: ProcessGroup = SINGLE_PROCESS

    @cached_property
    def counts(self) -> list[int]:
        """Pairs of each process, by rank."""
        whole, left = divmod(self.pairs, self.group.size)
        return [whole + (rank < left) for rank in range(self.group.size)]

    @property
    def own(self) -> slice:
        """Which pairs are this process's."""
        start = sum(self.counts[: self.group.rank])
        return slice(start, start + self.counts[self.group.rank])

    def join(self, rows: Tensor) -> Tensor:
        """The rows of all processes, by rank; a whole number of rows per pair.

        For values from which every process computes the same scalar: the gradient of the own rows is their part of
        that scalar's gradient, nothing is added up.
        """
        if self.group.size == 1:
            return rows
        joined: Tensor = _Join.apply(rows, self, False)
        return joined

    def collect(self, rows: Tensor) -> Tensor:
        """The rows of all processes, by rank, for use in any process.

        Gradients come back from wherever the rows were used: they are added up over the processes.
        """
        if self.group.size == 1:
            return rows
        joined: Tensor = _Join.apply(rows, self, True)
        return joined


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, shard: Shard, all_reduce_sum: bool) -> Tensor:
        ctx.shard, ctx.all_reduce_sum, ctx.per_pair = shard, all_reduce_sum, len(rows) // shard.counts[shard.group.rank]
        counts = [count * ctx.per_pair for count in shard.counts]
        longest = max(counts)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        pieces = rows.new_empty((shard.group.size, longest, *rows.shape[1:]))
        dist.all_gather_into_tensor(pieces.view(-1, *rows.shape[1:]), padded)
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        if ctx.all_reduce_sum:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(gradient)
        own = ctx.shard.own
        return gradient[own.start * ctx.per_pair : own.stop * ctx.per_pair], None, None
