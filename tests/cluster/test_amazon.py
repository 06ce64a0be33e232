"""cluster/gpu.yaml, made ready by the pinned Ray at an imitation of AWS."""

import json

import boto3
import pytest
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config

from colotride.distributed.ray_cluster import startable
from colotride.tune.resources import TrialResources, capacity
from tests.cluster.files import ROOT, read

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MINE = "198.51.100.7/32"


@pytest.fixture
def ec2(monkeypatch, tmp_path):
    """An account, empty but for the default network; Ray's waits for it are left out."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "imitation")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.chdir(ROOT)
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield boto3.client("ec2", read("gpu.yaml")["provider"]["region"])


@pytest.fixture
def group(ec2):
    """The security group that the README makes."""
    made = ec2.create_security_group(GroupName="colotride", Description="colotride")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=made, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=MINE)
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made}]}
    ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=[members])
    return made


def ready(group):
    """The file with the user's group, as Ray completes it."""
    config = read("gpu.yaml")
    for kind in config["available_node_types"].values():
        kind["node_config"]["SecurityGroupIds"] = [group]
    return _bootstrap_config(config, no_config_cache=True)


def test_ray_opens_nothing_beside_what_the_user_opened(ec2, group):
    before = ec2.describe_security_groups()["SecurityGroups"]
    kinds = ready(group)["available_node_types"]
    assert ec2.describe_security_groups()["SecurityGroups"] == before
    assert {one for kind in kinds.values() for one in kind["node_config"]["SecurityGroupIds"]} == {group}
    (used,) = (one for one in before if one["GroupId"] == group)
    outside = [(rule["FromPort"], rule["IpRanges"][0]["CidrIp"]) for rule in used["IpPermissions"] if rule["IpRanges"]]
    assert outside == [(22, MINE)]


def test_without_the_users_group_nothing_is_started(ec2, capsys):
    with pytest.raises(Exception):  # noqa: B017, PT011 - Ray's own has no message and no public name
        _bootstrap_config(read("gpu.yaml"), no_config_cache=True)
    assert "Failed to detect a security group" in capsys.readouterr().err


def test_the_head_has_no_gpu_and_is_not_multiplied_and_the_others_have_one(group):
    kinds = ready(group)["available_node_types"]
    assert "GPU" not in kinds["head"]["resources"]
    assert kinds["head"]["max_workers"] == 0
    assert kinds["gpu_spot"]["resources"] == kinds["gpu_on_demand"]["resources"]
    assert kinds["gpu_spot"]["resources"]["GPU"] == 1


def test_a_search_fills_all_machines_that_may_come_while_there_is_the_head_alone(group, tmp_path):
    config = ready(group)
    launched = tmp_path / "ray_bootstrap_config.yaml"
    launched.write_text(json.dumps(config))
    head = {name: float(amount) for name, amount in config["available_node_types"]["head"]["resources"].items()}
    assert capacity(TrialResources(8, 1.0, None), [head, *startable(launched)]) == config["max_workers"] == 8
