"""What listens while Ray runs on this machine: nothing but what SECURITY.md names."""

import os
import stat
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest

SECURITY = Path(__file__).resolve().parents[2] / "SECURITY.md"


def listening():
    """Programs of this process's children that listen beyond the loopback address, and the driver where it does."""
    me = psutil.Process()
    found = set()
    for process in (me, *me.children(recursive=True)):
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN and not one.laddr.ip.startswith("127."):
                found.add("driver" if process == me else process.name().removeprefix("ray::").split()[0])
    return found


def nodes(address, *metadata):
    """What Ray's control answers to whoever asks for its nodes, with an empty request."""
    with grpc.insecure_channel(address) as channel:
        method = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            call(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.slow
def test_ray_listens_where_the_guide_says_and_obeys_nobody_without_the_token():
    before = listening()
    assert before == set()
    from colotride.distributed.ray_cluster import TOKEN, start_ray

    start_ray()
    import ray

    ray.get(ray.remote(lambda: os.getpid()).remote())
    found = {"worker" if name == "IDLE" else name for name in listening()}
    text = SECURITY.read_text()
    assert found == {"driver", "gcs_server", "raylet", "DashboardAgent", "RuntimeEnvAgent", "worker"}
    assert [name for name in found if f"`{name}`" not in text] == []
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert stat.S_IMODE(TOKEN.expanduser().stat().st_mode) == 0o600
    asked = partial(nodes, ray.get_runtime_context().gcs_address)
    assert asked(("authorization", f"Bearer {TOKEN.expanduser().read_text().strip()}")) == grpc.StatusCode.OK
    assert asked() == asked(("authorization", f"Bearer {'0' * 64}")) == grpc.StatusCode.UNAUTHENTICATED
