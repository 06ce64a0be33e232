"""The trainer under Ray Train, with real workers, and what is left when they are really killed."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import ray
import torch
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from ray.train import PreemptionInfo, WorkerGroupError
from safetensors.torch import load_file

from colotride.config import save_config
from colotride.data.splits import load_splits
from colotride.distributed.ray_train import NOTICE_BATCHES, PreemptionNotice, Workers, cause_of, train_on_workers
from colotride.errors import ColoTrideError, ConfigurationError, ModelError
from colotride.presets import preset
from colotride.training.checkpoint import CHECKPOINTS, WEIGHTS, checkpoints_in
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.trainer import Trainer
from tests.commands import environment
from tests.process_groups import in_processes

pytestmark = pytest.mark.slow

CONFIG = preset("digits").with_values(
    {
        "data.pairs_per_batch": 16,
        "data.pairs_per_epoch": 16 * 24,
        "pgd.steps": 2,
        "training.epochs": 4,
        "model.embedding_dim": 16,
    }
)


@pytest.fixture(scope="module")
def one_machine():
    os.environ.pop("RAY_ADDRESS", None)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def final_weights(directory):
    newest = checkpoints_in(directory / CHECKPOINTS)[0]
    return torch.cat([one.flatten() for _, one in sorted(load_file(newest / WEIGHTS).items())])


def train(directory, workers="2", **options):
    wanted = Workers.parse(workers, gpu=False, cpus=1)
    return train_on_workers(
        CONFIG, wanted, directory, checkpoint_policy=options.pop("checkpoint_policy", CheckpointPolicy()), **options
    )


def kill_a_worker():
    """SIGKILL one of the processes that train, here and not in another test; none where they have not come up."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("RayTrainWorker" in part for part in process.cmdline()):
                process.kill()
                return True
    return False


def trained_by(group, directory):
    """What a run of two workers comes to when nothing happens; without Ray, which has no part in the numbers."""
    splits = load_splits(CONFIG.data)
    outcome = Trainer(CONFIG, splits.train, None, device=torch.device("cpu"), directory=directory, group=group).run()
    return [record.diagnostics for record in outcome.history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    course, _ = in_processes(trained_by, 2, folder, folder / "run")
    return final_weights(folder / "run"), course


def test_one_worker_gives_the_numbers_of_a_plain_run(one_machine, tmp_path):
    splits = load_splits(CONFIG.data)
    plain = Trainer(CONFIG, splits.train, None, device=torch.device("cpu"), directory=tmp_path / "plain")
    expected = plain.run()
    told = []
    outcome = train(tmp_path / "ray", "1", on_epoch=told.append)
    assert outcome.status == "finished"
    assert [record.diagnostics for record in told] == [record.diagnostics for record in expected.history]
    assert torch.equal(final_weights(tmp_path / "ray"), final_weights(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({0: ModelError("no such model")}, "no such model"),
        ({1: RuntimeError("gloo: peer is gone")}, "the workers failed for good \\(.*gloo: peer is gone.*\\)"),
    ],
)
def test_workers_that_failed_for_good_end_in_one_line(errors, expected):
    text = "\n".join(f"[rank {rank}] {error!r}" for rank, error in errors.items())
    error = cause_of(WorkerGroupError(text, errors))
    assert isinstance(error, ColoTrideError)
    assert re.fullmatch(expected, str(error))


@pytest.mark.parametrize("workers", ["2", "1:2"])
def test_a_batch_too_small_for_its_workers_is_refused_before_any_of_them_starts(workers, tmp_path):
    wanted, few = Workers.parse(workers, gpu=False, cpus=1), CONFIG.with_values({"data.pairs_per_epoch": 1})
    with pytest.raises(ConfigurationError, match="2 workers cannot share a batch of 1 pairs"):
        train_on_workers(few, wanted, tmp_path, checkpoint_policy=CheckpointPolicy())
    assert not any(tmp_path.iterdir())


def test_more_workers_than_the_machines_hold_are_refused_at_the_start(one_machine, tmp_path):
    for workers, line in (("3", "--workers 3 with 1 CPUs each do not fit: the machines here hold 2"),):
        with pytest.raises(ConfigurationError, match=line):
            train(tmp_path, workers)
    with pytest.raises(ConfigurationError, match="1 CPUs and a GPU each do not fit"):
        train_on_workers(CONFIG, Workers.parse("1", gpu=True, cpus=1), tmp_path, checkpoint_policy=CheckpointPolicy())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0", "should be greater than or equal to 1"),
        ("3:2", "should be a range that goes up, such as 2:3"),
        ("many", "should be a number such as 3"),
        ("2:", "should be a number such as 3"),
        ("-1", "should be a number such as 3"),
    ],
)
def test_a_number_of_workers_that_is_none_is_refused(text, why):
    with pytest.raises(ConfigurationError, match=f"--workers {text}: {why}"):
        Workers.parse(text, gpu=False, cpus=None)


def test_a_driver_and_a_worker_killed_and_a_wish_to_stop_change_no_bit(one_machine, undisturbed, tmp_path):
    weights, course = undisturbed
    save_config(CONFIG, tmp_path / "config.yaml")
    command = [sys.executable, "-m", "colotride", "train", "--config", str(tmp_path / "config.yaml")]
    command += ["--workers", "2", "--cpus-per-worker", "1", "--directory", str(tmp_path / "run"), "--no-track"]
    command += ["--checkpoint-minutes", "1e-6"]
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(checkpoints_in(tmp_path / "run" / CHECKPOINTS)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "run" / "summary.json").exists(), "killed too late to show anything"

    killed, told, late = [], [], []

    def on_step(epoch, done, total):
        if not killed:
            killed.append(kill_a_worker())
        elif epoch > 2:
            late.append(done)

    stopped = train(tmp_path / "run", on_step=on_step, on_epoch=told.append, should_stop=lambda: len(late) > 1)
    assert killed == [True]
    assert stopped.status == "interrupted"
    assert [record.epoch for record in told] == list(range(1, len(told) + 1)), "every epoch is told of once"
    assert 2 <= len(told) < 4

    outcome = train(tmp_path / "run")
    assert outcome.status == "finished"
    assert [one.diagnostics for one in outcome.history] == course
    assert torch.equal(final_weights(tmp_path / "run"), weights)


def test_a_machine_that_goes_away_costs_no_epoch(tmp_path, monkeypatch):
    # How long Ray waits for two workers where there is room for one only.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        removed, told = [], []

        def on_step(epoch, done, total):
            if epoch == 2 and done == 2 and not removed:
                removed.append(len(checkpoints_in(tmp_path / CHECKPOINTS)))
                cluster.remove_node(second, allow_graceful=False)

        outcome = train(
            tmp_path, "1:2", on_step=on_step, on_epoch=told.append, checkpoint_policy=CheckpointPolicy(minutes=1e-6)
        )
        assert removed
        assert outcome.status == "finished"
        assert [record.epoch for record in told] == [1, 2, 3, 4]
        assert outcome.history[-1].step == 4 * 24
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_machine_that_is_taken_away_with_notice_costs_no_failure_and_few_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.2")
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    config = CONFIG.with_values({"data.pairs_per_epoch": 16 * 300, "training.epochs": 1})
    drained, removed, steps = [], [], []

    def on_step(epoch, done, total):
        steps.append(done)
        if done >= 20 and not drained:
            drained.append(done)
            deadline = int(1000 * (time.time() + 20))
            client = GcsClient(address=cluster.address)
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            accepted, why = client.drain_node(second.node_id, reason, "spot", deadline)
            assert accepted, why
        if drained and not removed and checkpoints_in(tmp_path / CHECKPOINTS):
            removed.append(len(steps))
            # Workers hear of it before the controller does.
            time.sleep(3)
            cluster.remove_node(second, allow_graceful=False)

    try:
        outcome = train_on_workers(
            config,
            Workers.parse("1:2", gpu=False, cpus=1),
            tmp_path,
            checkpoint_policy=CheckpointPolicy(),
            max_failures=0,
            on_step=on_step,
        )
        assert removed, "the notice led to no checkpoint, although none was due before the end of the epoch"
        assert outcome.status == "finished"
        again = next(after for before, after in itertools.pairwise(steps) if after <= before)
        assert again > 20, "the epoch began anew"
        assert steps[-1] == 300
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_every_notice_is_heard_once():
    first, second = PreemptionInfo(1, {"a": [0]}), PreemptionInfo(1, {"a": [0], "b": [1]})
    told = iter([None, first, first, second, None])
    notice = PreemptionNotice(lambda: next(told))
    heard = [call for call in range(5 * NOTICE_BATCHES) if notice()]
    assert heard == [NOTICE_BATCHES, 3 * NOTICE_BATCHES]
