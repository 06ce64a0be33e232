"""What listens while Ray runs on this machine: nothing but what SECURITY.md names."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SECURITY = Path(__file__).resolve().parents[2] / "SECURITY.md"

STRANGER = """
import ray
ray.init(address="{address}", logging_level="CRITICAL")
print(ray.get(ray.remote(lambda: "commanded").remote()))
"""


def listening():
    """Programs of this process's children that listen beyond the loopback address, and the driver where it does."""
    me = psutil.Process()
    found = set()
    for process in (me, *me.children(recursive=True)):
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN and not one.laddr.ip.startswith("127."):
                found.add("driver" if process == me else process.name().removeprefix("ray::").split()[0])
    return found


@pytest.mark.slow
def test_ray_listens_where_the_guide_says_and_obeys_nobody_without_the_token(tmp_path):
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
    address = ray.get_runtime_context().gcs_address
    for changes in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        done = subprocess.run(
            [sys.executable, "-c", STRANGER.format(address=address)],
            env=os.environ | changes,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode != 0
        assert "commanded" not in done.stdout
        assert "AuthenticationError" in done.stderr
