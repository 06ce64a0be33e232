"""A machine that goes away with notice, and what a run in one process on it loses."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
import torch
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RaySystemError
from safetensors.torch import load_file

from colotride.distributed.drain import DrainNotice, draining
from colotride.distributed.ray_cluster import start_ray
from colotride.presets import preset
from colotride.training.checkpoint import CHECKPOINTS, WEIGHTS, checkpoints_in
from colotride.tune.final_runs import train_each
from colotride.tune.plan import SearchPlan
from colotride.tune.ray_tune import run_trials
from colotride.tune.resources import SearchFolders, TrialResources
from colotride.tune.space import build_space
from colotride.tune.study import SearchStudy

BATCHES = 1000

CONFIG = preset("digits").with_values(
    {
        "data.pairs_per_batch": 16,
        "data.pairs_per_epoch": 16 * BATCHES,
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


def test_a_ray_that_does_not_answer_costs_no_run(monkeypatch):
    def gone():
        raise RaySystemError("the control is gone")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", gone)
    assert not draining()


def weights_of(directory):
    newest = checkpoints_in(directory / CHECKPOINTS)[0]
    return torch.cat([one.flatten() for _, one in sorted(load_file(newest / WEIGHTS).items())])


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.05)


def repeated(folder):
    """One run as the race and the verdict train it; the folder of its checkpoints comes with it."""
    ((_, outcome),) = train_each({folder: CONFIG}, TrialResources())
    return outcome.status


def tried(folder):
    """The same configuration as the only trial of a search."""
    config = CONFIG.with_values({"data.hold_out_validation": True, "validation.queries": 4, "validation.steps": 1})
    space = build_space(config)
    study = SearchStudy(
        folder, SearchPlan(base=config, space=space, initial_points=(space.values_of(config),), trials=1)
    )
    run_trials(study, folder, TrialResources(), 1, SearchFolders(folder), [])
    return study.record(1).status


RUNS = {
    "repetition": (repeated, lambda folder: folder),
    "trial": (tried, lambda folder: SearchFolders(folder).trial(1)[0]),
}
"""How a run is trained, and where its checkpoints are then."""


@pytest.mark.slow
def test_runs_on_a_machine_that_is_taken_away_with_notice_go_on_in_their_epoch(tmp_path):
    """No checkpoint is due before the end of their only epoch: without the notice they would begin anew."""
    ray.shutdown()
    # How soon Ray takes a machine that is silent for dead.
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    first = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    start_ray()

    def begun(drivers, where):
        return {kind: drivers.submit(train, tmp_path / where / kind) for kind, (train, _) in RUNS.items()}

    def saved(kind):
        folder = RUNS[kind][1](tmp_path / "run" / kind)
        return [path for path in checkpoints_in(folder / CHECKPOINTS) if int(path.name)]

    try:
        with ThreadPoolExecutor(len(RUNS)) as drivers:
            for kind, run in begun(drivers, "plain").items():
                assert run.result(timeout=200) == "finished", kind
            training = begun(drivers, "run")
            until(
                lambda: all(
                    (place(tmp_path / "run" / kind) / "config.yaml").exists() for kind, (_, place) in RUNS.items()
                )
            )
            time.sleep(1)
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            gone = int(1000 * (time.time() + 60))
            accepted, why = GcsClient(address=cluster.address).drain_node(first.node_id, reason, "spot", gone)
            assert accepted, why
            # The first may come before the first batch, the next five seconds later.
            until(lambda: all(saved(kind) for kind in RUNS))
            kept = {kind: int(saved(kind)[0].name) for kind in RUNS}
            cluster.remove_node(first, allow_graceful=False)
            cluster.add_node(num_cpus=2)
            for kind, run in training.items():
                assert run.result(timeout=200) == "finished", kind
    finally:
        ray.shutdown()
        cluster.shutdown()
    for kind, (_, place) in RUNS.items():
        assert kept[kind] < BATCHES, "the only checkpoint is that of the notice"
        assert torch.equal(*(weights_of(place(tmp_path / where / kind)) for where in ("run", "plain"))), kind
