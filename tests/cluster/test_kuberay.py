"""cluster/kuberay.yaml: fields that Kubernetes takes, a cluster that the pinned Ray reads, and what it promises."""

import copy
import tomllib

import pytest
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from colotride.tune.resources import TrialResources, capacity
from tests.cluster.files import CLUSTER, ROOT, documents, pinned
from tests.cluster.kubernetes_fields import NETWORK_POLICY, RAY_JOB


@pytest.fixture
def job():
    return copy.deepcopy(documents("kuberay.yaml")[0])


@pytest.fixture
def cluster(job):
    return job["spec"]["rayClusterSpec"]


def validate(document, schema):
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document)


def pods(cluster):
    """The pods of the head and of all groups."""
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_every_field_is_one_that_kubernetes_knows():
    for document, schema in zip(documents("kuberay.yaml"), (RAY_JOB, NETWORK_POLICY), strict=True):
        validate(document, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backOffLimit"), 0),
        (("spec", "submissionMode"), "k8sJobMode"),
        (("spec", "rayClusterSpec", "authOptions"), {"mode": "tokens"}),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "restartpolicy"), "Never"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"), 3),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), "1"),
    ],
)
def test_a_mistake_is_found(job, path, value):
    there = job
    for step in path[:-1]:
        there = there[step]
    there[path[-1]] = value
    with pytest.raises(ValidationError):
        validate(job, RAY_JOB)


def derived(cluster):
    """What the pinned Ray's autoscaler makes of the cluster; it validates it by its own schema."""
    return _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": cluster})


def test_the_pinned_ray_reads_the_cluster(cluster):
    config = derived(cluster)
    assert config["idle_timeout_minutes"] == 10
    kind = config["available_node_types"]["gpu"]
    assert (kind["min_workers"], kind["max_workers"]) == (1, 4)
    assert "GPU" not in config["available_node_types"]["headgroup"]["resources"]


def test_the_machines_that_come_with_the_job_run_a_trial_each(job, cluster):
    (group,) = cluster["workerGroupSpecs"]
    offered = {
        name: float(amount) for name, amount in derived(cluster)["available_node_types"]["gpu"]["resources"].items()
    }
    words = job["spec"]["entrypoint"].split()
    asked = {name: float(words[words.index(f"--{name}s-per-trial") + 1]) for name in ("cpu", "gpu")}
    # A search begins with the machines that are there, and there is no launcher to ask for others.
    assert group["replicas"] == group["maxReplicas"]
    assert (
        capacity(TrialResources(int(asked["cpu"]), asked["gpu"], None), [offered] * group["replicas"])
        == group["replicas"]
    )


def test_versions_are_the_pinned_ones(cluster):
    assert cluster["rayVersion"] == pinned("ray")
    images = {container["image"] for pod in pods(cluster) for container in pod["spec"]["containers"]}
    (image,) = images
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert image.endswith(f"/colotride:{ours}-ray{pinned('ray')}-py311")
    assert f"--tag {image} ." in (CLUSTER / "Dockerfile").read_text()


def test_nothing_is_exposed_and_the_token_is_demanded(cluster):
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["headGroupSpec"]["enableIngress"] is False


def test_the_policy_holds_for_every_pod_and_lets_in_the_namespace_and_the_operator_alone(cluster):
    policy = documents("kuberay.yaml")[1]["spec"]
    for pod in pods(cluster):
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (rule,) = policy["ingress"]
    assert "ports" not in rule
    inside, operator = rule["from"]
    assert inside == {"podSelector": {}}
    assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}


def test_it_ends_by_itself(job):
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] == 0, "a search is not paid for twice"


def test_volumes_and_mounts_belong_together_and_requests_are_limits(cluster):
    for pod in pods(cluster):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]
