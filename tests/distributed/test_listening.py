"""What listens while Ray runs on this machine: nothing but what SECURITY.md names."""

import contextlib
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest

from tests.commands import ROOT, environment
from tests.marked_processes import MARK, marked
from tests.mlflow_servers import free_port

AGENTS = ("DashboardAgent", "RuntimeEnvAgent")

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


def beyond_loopback(mark):
    """Names of a command's processes that listen beyond the loopback address."""
    found = set()
    for pid in marked(mark):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            listens = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            if any(not one.laddr.ip.startswith("127.") for one in listens):
                found.add(role(process.name()))
    return found


def role(name):
    """What SECURITY.md calls a process: Ray's workers go by the name of what they do at the moment."""
    if name.startswith("ray::"):
        return name.removeprefix("ray::") if name.removeprefix("ray::") in AGENTS else "worker"
    return "driver" if name.startswith("python") else name


@contextlib.contextmanager
def started(command, place):
    """A command that runs, and the mark of all its processes; it is ended with the block."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment(**{MARK: mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, mark
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "search"])
def test_a_command_with_workers_listens_where_the_guide_says(tmp_path, command):
    asked = {
        "train": ["train", "--workers", "2", "--directory", "made", "--no-track"],
        "search": ["search", "--trials", "2", "--no-verdict", "--results", "made"],
    }[command]
    long = ["--dataset", "digits", "--run.training.epochs", "500"]
    with started([sys.executable, "-m", "colotride", *asked, *long], tmp_path) as (process, mark):
        deadline = time.monotonic() + 200
        while not any((tmp_path / "made").rglob("history.jsonl")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.2)
        found = beyond_loopback(mark)
    assert {"gcs_server", "raylet", "worker", "driver"} <= found
    text = SECURITY.read_text()
    assert [name for name in found if f"`{name}`" not in text] == []


@pytest.mark.slow
def test_mlflows_pages_listen_on_loopback_alone(tmp_path):
    recipe = re.search(
        r"^ui:.*?(\$\(BIN\)/mlflow ui [^\n]*)", (ROOT / "Makefile").read_text(), re.DOTALL | re.MULTILINE
    )[1]
    port = free_port()
    command = recipe.replace("$(BIN)/mlflow", f"{sys.executable} -m mlflow").replace("$(PORT)", str(port))
    with started(shlex.split(command), tmp_path) as (process, mark):
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            assert process.poll() is None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        listening_here = {
            one.laddr.port
            for pid in marked(mark)
            for one in psutil.Process(pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        }
        assert port in listening_here
        assert beyond_loopback(mark) == set()


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
