"""Machines that are not there yet count as much as those that are."""

import json

import pytest
import ray

from colotride import distributed
from colotride.distributed import startable
from colotride.errors import SearchError
from tune.engine import Resources, check_resources

SMALL = {"CPU": 4.0}
GPU = {"CPU": 8, "GPU": 1}


def description(most):
    """What `ray up` leaves on the head: its own kind, and one with a GPU of which so many may be started."""
    kinds = {"head": {"resources": {"CPU": 4}, "max_workers": 0}, "gpu": {"resources": GPU, "max_workers": most}}
    return {"head_node_type": "head", "available_node_types": kinds}


def test_a_trial_may_ask_for_what_the_launcher_can_start(tmp_path):
    launched = tmp_path / "launched.json"
    launched.write_text(json.dumps(description(most=8)))
    offered = [SMALL, *startable(launched)]
    check_resources(Resources(8, 1.0, None), offered)
    with pytest.raises(SearchError, match="--gpus-per-trial 2 is more"):
        check_resources(Resources(1, 2.0, None), offered)


def test_a_kind_that_may_not_be_started_counts_for_nothing(tmp_path):
    launched = tmp_path / "launched.json"
    launched.write_text(json.dumps(description(most=0)))
    assert startable(launched) == []


def test_without_a_launcher_there_is_nothing_to_start(tmp_path):
    assert startable(tmp_path / "missing.json") == []


@pytest.mark.slow
def test_it_counts_on_a_cluster_alone(tmp_path, monkeypatch):
    launched = tmp_path / "launched.json"
    launched.write_text(json.dumps(description(most=8)))
    monkeypatch.setattr(distributed, "LAUNCHED", launched)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    distributed.start_ray()
    try:
        assert len(distributed.machines()) == 1, "what an earlier cluster left says nothing of this machine"
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert distributed.machines()[1:] == [GPU]
    finally:
        ray.shutdown()
