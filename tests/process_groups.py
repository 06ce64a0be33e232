"""Runs a function in several processes that are one group of torch.distributed, as Ray Train would set them up."""

import pickle
import socket
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import multiprocessing

from colotride.distributed.shards import ProcessGroup


def in_processes(function, size, folder, *arguments):
    """What `function(group, *arguments)` returns in each process, by rank; it must be importable by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one, (size, port, folder, function, arguments), nprocs=size)
    return [pickle.loads((folder / f"rank-{rank}").read_bytes()) for rank in range(size)]


def _one(rank, size, port, folder, function, arguments):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    try:
        value = function(ProcessGroup.of_this_process(), *arguments)
    finally:
        dist.destroy_process_group()
    (folder / f"rank-{rank}").write_bytes(pickle.dumps(value))
