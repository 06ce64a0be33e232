"""cluster/gpu.yaml and local.yaml: accepted by the pinned Ray, and what they promise."""

import os
import re
import shlex
import subprocess

import pytest
import ray
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import CLUSTER, ROOT, pinned, read

FILES = ("gpu.yaml", "local.yaml")


def commands(config):
    """All that is run on machines, as one text."""
    return "\n".join(command for key in config if key.endswith("_commands") for command in config[key])


def started(config, kind):
    """The options of `ray start` on the head or the workers."""
    (command,) = (command for command in config[f"{kind}_start_ray_commands"] if "ray start" in command)
    words = shlex.split(command.split("ray start")[1])
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


@pytest.fixture(params=FILES)
def config(request):
    return read(request.param)


def test_the_pinned_ray_is_the_one_that_judges():
    assert ray.__version__ == pinned("ray")


def test_ray_accepts_it(config, monkeypatch):
    monkeypatch.chdir(ROOT)
    validate_config(prepare_config(config))


def test_ray_would_refuse_a_misspelt_key(config, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        validate_config(prepare_config(config | {"idle_timeout_minuts": 3}))


def test_every_mount_is_there_and_the_installation_lacks_none(config):
    mounts = {there: here for there, here in config["file_mounts"].items() if there != "~/.ray/auth_token"}
    assert all((ROOT / here).exists() for here in mounts.values())
    assert all(there == f"~/colotride/{here}" for there, here in mounts.items())
    assert {"colotride", "tune", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(mounts.values())


def test_the_project_is_installed_with_the_pinned_versions(config):
    (install,) = (command for command in config["setup_commands"] if "pip install" in command)
    assert install.endswith("pip install --constraint ~/colotride/constraints.txt ~/colotride[cluster]")


def test_the_dashboard_listens_to_its_own_machine_alone(config):
    assert started(config, "head")["dashboard-host"] == "127.0.0.1"
    assert "0.0.0.0" not in commands(config)


def test_head_and_workers_demand_the_token(config):
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    options = config.get("docker", {}).get("run_options", [])
    assert "RAY_AUTH_MODE=token" in " ".join([*options, *config["setup_commands"]])


def test_what_a_user_must_set_stands_in_one_place(config):
    assert len(re.findall(r"\bCOLOTRIDE_SHARE=", commands(config))) == 1


def test_gpu_machines_come_on_demand_are_bounded_and_go_soon():
    config = read("gpu.yaml")
    assert 0 < config["idle_timeout_minutes"] <= 15
    kinds = config["available_node_types"]
    markets = {}
    for name, kind in kinds.items():
        if name != config["head_node_type"]:
            assert kind["min_workers"] == 0
            assert 0 < kind["max_workers"] <= config["max_workers"]
            markets[name] = kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType", "on demand")
    assert sorted(markets.values()) == ["on demand", "spot"]
    assert config["provider"]["cache_stopped_nodes"] is False, "a stopped machine costs its disk"


def test_the_container_is_the_pinned_ray_on_python_311():
    image = read("gpu.yaml")["docker"]["image"]
    assert image == f"rayproject/ray:{pinned('ray')}-py311-gpu"
    assert f"FROM {image}\n" in (CLUSTER / "Dockerfile").read_text()


def test_all_machines_start_from_the_same_image_behind_the_same_group():
    kinds = [kind["node_config"] for kind in read("gpu.yaml")["available_node_types"].values()]
    assert len({kind["ImageId"] for kind in kinds}) == 1
    # A parameter that is looked up at every start would need rights that Ray's role on the head lacks.
    assert kinds[0]["ImageId"].startswith("ami-")
    assert all(kind["SecurityGroupIds"] == kinds[0]["SecurityGroupIds"] for kind in kinds)
    assert all(kind["MetadataOptions"] == {"HttpTokens": "required"} for kind in kinds)


def test_local_machines_take_python_311_and_all_stay():
    config = read("local.yaml")
    assert "python3.11 -m venv" in commands(config)
    (kind,) = prepare_config(config)["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


def test_a_share_whose_name_has_spaces_reaches_the_environment(tmp_path):
    (writes,) = (one for one in read("local.yaml")["setup_commands"] if "environment.sh" in one and "printf" in one)
    assert "COLOTRIDE_SHARE=/srv/colotride;" in writes
    share = "/srv/our $(touch pwned) share"
    writes = writes.replace("=/srv/colotride;", f"={shlex.quote(share)};")
    (tmp_path / "colotride").mkdir()
    show = 'source ~/colotride/environment.sh; printf "%s\\n" "$COLOTRIDE_DATA" "$MLFLOW_TRACKING_URI" "$RAY_AUTH_MODE"'
    done = subprocess.run(
        ["bash", "-ec", f"{writes}\n{show}"],
        cwd=tmp_path, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{share}/data", f"sqlite:///{share}/mlflow.db", "token"]
    assert not (tmp_path / "pwned").exists()


def test_data_and_results_lie_on_the_share_that_the_container_sees():
    options = " ".join(read("gpu.yaml")["docker"]["run_options"])
    assert "--volume /mnt/colotride:/mnt/colotride" in options
    assert "COLOTRIDE_DATA=/mnt/colotride/" in options
    assert "MLFLOW_TRACKING_URI=sqlite:////mnt/colotride/" in options
