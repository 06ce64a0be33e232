"""cluster/local.yaml, brought up for real over SSH: two machines, a probe, a search, and down again.

The machines are namespaces of this one (see `machines.py`). They have no internet, so that `pip install` is replaced by
the packages of the environment that runs the test; all else is as the file and cluster/README.md say.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import yaml

from tests.cluster.files import ROOT, read
from tests.cluster.machines import machines, missing
from tests.commands import environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=f"no machines to bring up: {missing()}"),
]

RAY = (sys.executable, "-m", "ray.scripts.scripts")
PORT = 18265
TOKEN = "0123456789abcdef" * 4
PROBE = """
import json
import ray
ray.init(logging_level="CRITICAL")

@ray.remote(num_cpus=1)
def where():
    import os, socket, time
    import colotride.tune
    time.sleep(2)
    return socket.gethostname(), colotride.tune.__file__, os.environ["COLOTRIDE_DATA"]

print("PROBE", json.dumps(ray.get([where.options(scheduling_strategy="SPREAD").remote() for _ in range(4)])))
"""


def test_two_machines_come_up_run_a_search_and_go_down(tmp_path):
    share, user = tmp_path / "share", tmp_path / "user"
    for folder in (share, user / ".ray", user / "tmp"):
        folder.mkdir(parents=True)
    (user / ".ray/auth_token").write_text(TOKEN)
    env = environment(HOME=str(user), TMPDIR=str(user / "tmp"), RAY_AUTH_MODE="token", PYTHONPATH="")
    env.pop("RAY_ADDRESS", None)
    with machines(tmp_path, 2) as (hosts, key):
        head = hosts[0]
        config = tmp_path / "local.yaml"
        config.write_text(yaml.safe_dump(here(read("local.yaml"), hosts, key, share)))
        try:
            ray("up", config, "--yes", "--no-config-cache", env=env)
            assert isinstance(json.loads((head.home / "ray_bootstrap_config.yaml").read_text()), dict)
            assert (head.home / ".ray/auth_token").read_text() == TOKEN
            assert status(f"http://{head.address}:8265/api/version") is None, "the dashboard is reached by SSH alone"
            with tunnel(config, env) as address:
                nobody_submits_without_the_token(address)
                wait_until(lambda: alive(address) == 2, "the second machine joins")
                both_machines_work_with_our_code(address, env, share)
                a_search_leaves_its_results_on_the_share(address, env, share)
            assert "2 local.cluster.node" in ray("exec", config, "ray status", env=env)
            ray("rsync-down", config, f"{share}/runs/", f"{user}/runs/", env=env)
            assert (user / "runs/first/best.yaml").is_file()
        finally:
            ray("down", config, "--yes", env=env)
        wait_until(lambda: not any("raylet" in host.run("ps ax") for host in hosts), "ray down leaves no Ray behind")


def nobody_submits_without_the_token(address):
    assert status(f"{address}/api/jobs/") == 401
    assert status(f"{address}/api/jobs/", token="f" * 64) == 403
    assert status(f"{address}/api/jobs/", token=TOKEN) == 200


def both_machines_work_with_our_code(address, env, share):
    told = submit(address, "python", "-c", f"exec({PROBE!r})", env=env)
    answers = json.loads(told.split("PROBE ")[1].splitlines()[0])
    names, modules, data = (set(answer) for answer in zip(*answers, strict=True))
    assert names == {"machine-0", "machine-1"}
    assert all("/working_dir_files/" in module for module in modules), "the code is the one that was submitted"
    assert data == {f"{share}/data"}


def a_search_leaves_its_results_on_the_share(address, env, share):
    # One trial takes all cores of a machine: two at once need both machines.
    told = submit(
        address, "python", "tune/search.py", "--dataset", "digits", "--trials", "2", "--name", "first",
        "--results", share / "runs", "--no-verdict", "--cpus-per-trial", os.cpu_count(),
        "--run.training.epochs", "1", "--run.validation.queries", "16", "--run.validation.steps", "2",
        env=env,
    )  # fmt: skip
    assert "Best configuration" in told
    assert (share / "runs/first/best.yaml").is_file()
    assert len(json.loads((share / "runs/first/trials.json").read_text())) == 2
    assert (share / "mlflow.db").is_file()


def here(config, hosts, key, share):
    """local.yaml, with the values that a user must set, and with this environment's packages for `pip install`."""
    config["provider"].update(head_ip=hosts[0].address, worker_ips=[host.address for host in hosts[1:]])
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    text = yaml.safe_dump(config)
    assert "/srv/colotride" in text
    assert "python3.11 -m venv" in text
    text = text.replace("/srv/colotride", str(share)).replace(
        "python3.11 -m venv", f"{sys.executable} -m venv --without-pip"
    )
    config = yaml.safe_load(text)
    install = next(i for i, command in enumerate(config["setup_commands"]) if "pip install" in command)
    config["setup_commands"][install] = instead_of_pip()
    return config


def instead_of_pip():
    """A command that gives a fresh environment the packages of this one, and the `ray` command."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    script = '#!/bin/sh\\nexec ~/colotride-venv/bin/python -m ray.scripts.scripts "$@"\\n'
    return (
        f"echo '{packages}' > $(echo ~/colotride-venv/lib/python3.*/site-packages)/here.pth; "
        f"printf '{script}' > ~/colotride-venv/bin/ray; chmod +x ~/colotride-venv/bin/ray"
    )


def ray(*arguments, env):
    """A command of Ray's, in the repository root like those of the README."""
    done = subprocess.run(
        [*RAY, *map(str, arguments)],
        cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(address, *command, env):
    return ray("job", "submit", "--address", address, "--working-dir", ".", "--", *command, env=env)


@contextmanager
def tunnel(config, env):
    """`ray dashboard`, as the README has it."""
    opened = subprocess.Popen(
        [*RAY, "dashboard", str(config), "--port", str(PORT)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{PORT}"
    try:
        wait_until(lambda: status(f"{address}/api/version", token=TOKEN) is not None, "the tunnel opens")
        yield address
    finally:
        os.killpg(opened.pid, 15)
        opened.communicate(timeout=30)


def request(address, token):
    return urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})


def status(address, token=None):
    """The HTTP status of an address, or None where nobody answers."""
    try:
        with urllib.request.urlopen(request(address, token), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def alive(address):
    """How many machines the cluster has."""
    with urllib.request.urlopen(request(f"{address}/nodes?view=summary", TOKEN), timeout=10) as answer:
        summary = json.load(answer)["data"]["summary"]
    return sum(node["raylet"].get("state") == "ALIVE" for node in summary)


def wait_until(reached, what):
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline, f"not in two minutes: {what}"
        time.sleep(0.5)
