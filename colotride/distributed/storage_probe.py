"""Whether all machines of a cluster see one another's files, found out before hours are spent on checkpoints that vanish."""

import contextlib
import uuid
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from colotride.errors import ConfigurationError
from colotride.remote import REMOTE_ERRORS, RemoteDirectory, reason_of

SECONDS = 120
"""How long a machine may take to answer: it starts a process for it."""


def check_shared(directory: Path, storage: str | None) -> None:
    """Write a file here, let every other machine read it and write one of its own, and read those.

    Only the machines that have joined are asked; one machine alone needs no shared disk.

    Args:
        directory: of a run or a search.
        storage: URI of second copies, where there are any: then these must be shared, and the directory need not be.

    Raises:
        ConfigurationError: a machine cannot read what was written here, or the other way round; it names the machine.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    others.pop(here, None)
    if not others:
        return
    where = storage or str(directory.absolute())
    uri = storage or directory.absolute().as_uri()
    remedy = (
        "see that all machines may read and write it"
        if storage
        else "give a folder that all machines share, or the URI of second copies with --storage"
    )
    token = f".probe-{uuid.uuid4().hex}"
    written = [token]
    try:
        place = RemoteDirectory(uri)
        place.write(token, token.encode())
        asked = {
            node: ray.remote(num_cpus=0, max_retries=0)(_answer)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            .remote(uri, token, f"{token}-{node}")
            for node in others
        }
        for node, answer in asked.items():
            complaint = ray.get(answer, timeout=SECONDS)
            if complaint:
                raise ConfigurationError(
                    f"machine {others[node]} cannot read what is written into {where} ({complaint}); {remedy}"
                )
            written.append(f"{token}-{node}")
            if place.size(written[-1]) is None:
                raise ConfigurationError(
                    f"what machine {others[node]} writes into {where} cannot be read here; {remedy}"
                )
    except (*REMOTE_ERRORS, ray.exceptions.RayError) as error:
        raise ConfigurationError(f"{where} could not be probed ({reason_of(error)}); {remedy}") from error
    finally:
        with contextlib.suppress(*REMOTE_ERRORS):
            for name in written:
                place.delete(name)


def _answer(uri: str, token: str, reply: str) -> str:
    """On another machine: read, then write; empty where both succeed."""
    try:
        place = RemoteDirectory(uri)
        if place.size(token) is None:
            return "the file is not there"
        if place.read(token) != token.encode():
            return "the file has another content"
        place.write(reply, token.encode())
    except REMOTE_ERRORS as error:
        return reason_of(error)
    return ""
