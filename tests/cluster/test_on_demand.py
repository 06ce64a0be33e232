"""Machines that are not there yet count as much as those that are."""

import json

import pytest
import ray

from colotride.distributed import ray_cluster
from colotride.distributed.ray_cluster import startable
from colotride.errors import SearchError
from colotride.tune.resources import TrialResources, capacity

HEAD = {"CPU": 4.0}
SMALL = {"CPU": 8, "GPU": 1}
LARGE = {"CPU": 96, "GPU": 8}


@pytest.fixture
def launched(tmp_path):
    """Where `ray up` leaves its description."""
    return tmp_path / "ray_bootstrap_config.yaml"


def launch(launched, *, small=0, large=0, most=99):
    kinds = {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "small": {"resources": SMALL, "max_workers": small},
        "large": {"resources": LARGE, "max_workers": large},
    }
    description = {"head_node_type": "head", "max_workers": most, "available_node_types": kinds}
    launched.write_text(json.dumps(description))


def test_as_many_trials_run_at_once_as_fit_on_all_that_may_be_started(launched):
    launch(launched, small=3, large=1)
    one_gpu = TrialResources(8, 1.0, None)
    assert capacity(one_gpu, [HEAD, *startable(launched)]) == 3 + 8
    with pytest.raises(SearchError, match="--gpus-per-trial 9 is more"):
        capacity(TrialResources(1, 9.0, None), [HEAD, *startable(launched)])


def test_no_more_machines_count_than_may_be_there_at_once_and_each_kind_does(launched):
    launch(launched, small=5, large=2, most=3)
    assert startable(launched) == [SMALL, LARGE, SMALL]


def test_a_kind_that_may_not_be_started_counts_for_nothing(launched):
    launch(launched)
    assert startable(launched) == []


def test_without_a_launcher_there_is_nothing_to_start(launched):
    assert startable(launched) == []


@pytest.mark.slow
def test_it_counts_on_a_cluster_alone_and_beside_its_head(launched, monkeypatch):
    monkeypatch.setattr(ray_cluster, "LAUNCHED", launched)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    launch(launched, small=2)
    ray_cluster.start_ray()
    try:
        here = ray_cluster.machines()
        assert len(here) == 1, "what an earlier cluster left says nothing of this machine"
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert ray_cluster.machines() == [*here, SMALL, SMALL]
        launch(launched)
        assert ray_cluster.machines() == here
    finally:
        ray.shutdown()
