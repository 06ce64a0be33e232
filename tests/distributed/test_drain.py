"""A machine that goes away with notice, and what a run in one process on it loses."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
import torch
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from safetensors.torch import load_file

from colotride.distributed.drain import DrainNotice, draining
from colotride.presets import preset
from colotride.training.checkpoint import CHECKPOINTS, WEIGHTS, checkpoints_in
from colotride.tune.final_runs import train_each
from colotride.tune.resources import TrialResources

CONFIG = preset("digits").with_values(
    {
        "data.pairs_per_batch": 16,
        "data.pairs_per_epoch": 16 * 600,
        "pgd.steps": 2,
        "training.epochs": 1,
        "model.embedding_dim": 16,
        "data.hold_out_validation": False,
    }
)


def test_it_is_time_to_save_every_few_seconds_while_the_machine_is_drained(monkeypatch):
    now, drained, asked = [100.0], [False], []
    monkeypatch.setattr("colotride.distributed.drain.time.monotonic", lambda: now[0])
    notice = DrainNotice(lambda: asked.append(now[0]) or drained[0], seconds=5.0)
    heard = []
    for moment in range(100, 130):
        now[0] = float(moment)
        drained[0] = 112 <= moment < 127
        if notice():
            heard.append(moment)
    assert asked == [100, 105, 110, 115, 120, 125]
    assert heard == [115, 120, 125]


def test_without_ray_no_machine_is_drained():
    ray.shutdown()
    assert not draining()


def weights_of(directory):
    newest = checkpoints_in(directory / CHECKPOINTS)[0]
    return torch.cat([one.flatten() for _, one in sorted(load_file(newest / WEIGHTS).items())])


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_on_a_machine_that_is_taken_away_with_notice_goes_on_in_its_epoch(tmp_path):
    """No checkpoint is due before the end of its only epoch: without the notice it would begin anew."""
    ray.shutdown()
    # How soon Ray takes a machine that is silent for dead.
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    first = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    folder = tmp_path / "run"
    try:
        list(train_each({tmp_path / "plain": CONFIG}, TrialResources()))
        with ThreadPoolExecutor(1) as driver:
            training = driver.submit(lambda: list(train_each({folder: CONFIG}, TrialResources())))
            until(lambda: (folder / "config.yaml").exists())
            time.sleep(1)
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            gone = int(1000 * (time.time() + 60))
            accepted, why = GcsClient(address=cluster.address).drain_node(first.node_id, reason, "spot", gone)
            assert accepted, why
            # The first may come before the first batch, the next five seconds later.
            until(lambda: any(int(path.name) for path in checkpoints_in(folder / CHECKPOINTS)))
            (kept, *_) = checkpoints_in(folder / CHECKPOINTS)
            cluster.remove_node(first, allow_graceful=False)
            cluster.add_node(num_cpus=1)
            ((_, outcome),) = training.result(timeout=200)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert 0 < int(kept.name) < 600, "the only checkpoint is that of the notice"
    assert outcome.status == "finished"
    assert torch.equal(weights_of(folder), weights_of(tmp_path / "plain"))
