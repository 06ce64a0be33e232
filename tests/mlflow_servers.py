"""A real MLflow server on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_server(directory, port, uri=None):
    """Start a server on a store, `server.db` in the directory by default, and return its process once it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri or f"sqlite:///{directory}/server.db"]
    command += ["--artifacts-destination", f"{directory}/artifacts"]
    process = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    kill_server(process)
    raise AssertionError("the server never came up")


def kill_server(process):
    """End a server and its workers at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def mlflow_server(directory, uri=None):
    """The address of a server, for as long as the block lasts."""
    port = free_port()
    process = start_server(directory, port, uri)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        kill_server(process)
