"""Single trials in a real Ray, and what becomes of one that runs out of memory."""

import os
import time
from urllib.parse import quote

import pytest
import ray
import torch

from colotride.data.splits import load_splits
from colotride.errors import WorkerError
from colotride.presets import preset
from colotride.training.trainer import Trainer
from colotride.tune.final_runs import _each, train_and_evaluate_each, train_each
from colotride.tune.plan import SearchPlan
from colotride.tune.ray_tune import RETRIES, run_trials
from colotride.tune.resources import SearchFolders, TrialResources, capacity
from colotride.tune.space import build_space
from colotride.tune.study import SearchStudy
from colotride.tune.trial import run_trial

pytestmark = pytest.mark.slow

BASE = preset("digits").with_values(
    {
        "training.epochs": 2,
        "validation.queries": 16,
        "validation.steps": 2,
        "pgd.steps": 2,
        "data.hold_out_validation": True,
        "data.pairs_per_batch": 16,
        "data.pairs_per_epoch": 64,
        "model.embedding_dim": 16,
    }
)
SPACE = build_space(BASE)
ONE = {"CPU": 4.0, "GPU": 1.0}


def plan(**changes):
    return SearchPlan(base=BASE, space=SPACE, initial_points=(SPACE.values_of(BASE),), **{"trials": 1, **changes})


class Log:
    """Remembers what it is told."""

    def __init__(self):
        self.events = []

    def started(self, record):
        self.events.append(("started", record.number))

    def reported(self, record):
        self.events.append(("reported", record.number, record.epoch))

    def ended(self, record):
        self.events.append(("ended", record.number, record.status))


@pytest.fixture(scope="module", autouse=True)
def _machine():
    # A GPU that is only promised: nothing here computes on it.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def search(folder, made, resources, fault=None):
    """Run a search; `fault` may raise before a trial trains, and is told its folder."""
    study, log = SearchStudy(folder, made), Log()

    def trial(given, plan, resources, folders):
        # In the trial's own process, which trains other trials before and after.
        plain = Trainer.run

        def run(trainer, *args, **kwargs):
            if fault is not None:
                fault(folders.trial(given["number"])[0])
            return plain(trainer, *args, **kwargs)

        Trainer.run = run
        try:
            run_trial(given, plan, resources, folders)
        finally:
            Trainer.run = plain

    run_trials(study, folder, resources, capacity(resources, [ONE]), SearchFolders(folder), [log], trial)
    return study, log


def plain_run(config):
    """The same configuration trained by the trainer alone, without a search around it."""
    splits = load_splits(config.data)
    return Trainer(config, splits.train, splits.validation, device=torch.device("cpu")).run().history


def test_a_trial_is_the_trainers_own_run_and_ends_early_when_its_cost_is_spent(tmp_path):
    alone = plain_run(BASE)
    whole, log = search(tmp_path / "whole", plan(), TrialResources())
    record = whole.record(1)
    assert [one.validation for one in record.history] == [one.validation for one in alone], "bit for bit"
    assert [one.diagnostics for one in record.history] == [one.diagnostics for one in alone]
    assert record.costs == pytest.approx([alone[0].passes / 1e6, (alone[0].passes + alone[1].passes) / 1e6])
    assert log.events == [
        ("started", 1), ("reported", 1, 1), ("reported", 1, 2), ("ended", 1, "finished"),
    ]  # fmt: skip

    short, _ = search(tmp_path / "short", plan(max_cost=1.5 * record.costs[0]), TrialResources())
    spent = short.record(1)
    assert (spent.status, spent.epoch) == ("finished", 1)
    assert "is spent" in spent.reason
    assert spent.scores == {name: alone[0].validation[name] for name in spent.scores}


def test_what_is_repeated_ends_at_the_cost_at_which_its_trial_did(tmp_path):
    made = plan(max_cost=1.5 * plain_run(BASE)[0].passes / 1e6)
    trial = search(tmp_path / "search", made, TrialResources())[0].record(1)
    (again,) = train_each({tmp_path / "race": BASE}, TrialResources(), limits=made.cost_limit())
    assert (again[1].status, again[1].reason) == ("finished", trial.reason)
    assert [one.validation for one in again[1].history] == [one.validation for one in trial.history]
    small = BASE.with_values({"evaluation.queries": 16, "evaluation.steps": 1})
    for _ in range(2):
        (verdict,) = train_and_evaluate_each({tmp_path / "verdict": small}, TrialResources(), limits=made.cost_limit())
        assert (verdict[1].status, len(verdict[1].history)) == ("finished", 1), "also when it is resumed"
        assert verdict[1].evaluation is not None


def test_a_repeated_run_that_runs_out_of_gpu_memory_is_tried_again_alone(tmp_path):
    def crowded(config, directory, resources, limit, policy):
        gpus = ray.get_runtime_context().get_assigned_resources()["GPU"]
        with (tmp_path / "tried").open("a") as log:
            log.write(f"{directory.name} {gpus}\n")
        if directory.name == "alone" and gpus < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return directory.name

    runs = {tmp_path / name: BASE for name in ("fits", "alone")}
    assert dict(_each(crowded, runs, TrialResources(gpus=0.25), 2, None)) == {path: path.name for path in runs}
    assert sorted((tmp_path / "tried").read_text().splitlines()) == ["alone 0.25", "alone 1.0", "fits 0.25"]


def test_a_repeated_run_asks_for_the_memory_that_was_measured(tmp_path):
    def asked(config, directory, resources, limit, policy):
        return ray.get_runtime_context().get_assigned_resources().get("memory", 0)

    given = TrialResources(memory=300 * 2**20)
    ((_, memory),) = _each(asked, {tmp_path: BASE}, given, None, None)
    assert memory == given.memory


def test_a_trial_on_workers_of_its_own_is_the_run_of_one_process(tmp_path):
    """Two workers sum each batch's gradients in another order, which the signs of PGD's steps amplify over an epoch:
    a percent or two, by processor. That one batch agrees to rounding is tests/distributed/test_shards.py's."""
    made = plan()
    alone = plain_run(made.base)
    study, log = search(tmp_path, made, TrialResources(workers_per_trial=2))
    record = study.record(1)
    assert record.status == "finished"
    assert record.cost == pytest.approx(sum(one.passes for one in alone) / 1e6, rel=0.01), "passes of all workers"
    for name in ("loss", "collapseness", "hardness"):
        assert record.history[0].diagnostics[name] == pytest.approx(alone[0].diagnostics[name], rel=0.05, abs=5e-3)
    assert [event for event in log.events if event[0] != "reported"] == [("started", 1), ("ended", 1, "finished")]


def test_a_trial_that_runs_out_of_gpu_memory_is_tried_again_alone_and_only_once(tmp_path):
    def crowded(folder):
        """Too little memory for the first trial beside others, for the second even alone."""
        gpus = ray.get_runtime_context().get_assigned_resources()["GPU"]
        with (folder.parent.parent / "tried").open("a") as log:
            log.write(f"{folder.name} {gpus}\n")
        if folder.name == "002" or gpus < 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    study, log = search(tmp_path, plan(trials=2), TrialResources(gpus=0.25), crowded)
    assert [record.status for record in study.records()] == ["finished", "out-of-memory"]
    assert "CUDA out of memory" in study.record(2).reason
    tried = sorted((tmp_path / "tried").read_text().splitlines())
    assert tried == ["001 0.25", "001 1.0", "002 0.25", "002 1.0"]
    ends = {event for event in log.events if event[0] == "ended"}
    assert ends == {("ended", 1, "finished"), ("ended", 2, "out-of-memory")}


def test_a_trial_on_a_whole_gpu_that_runs_out_of_memory_has_ended(tmp_path):
    def crowded(folder):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    _, log = search(tmp_path, plan(), TrialResources(gpus=1), crowded)
    assert log.events == [("started", 1), ("reported", 1, 0), ("ended", 1, "out-of-memory")]


def test_a_trial_that_raises_is_an_error_with_its_reason_and_the_search_goes_on(tmp_path):
    def broken(folder):
        if folder.name == "001":
            raise ValueError("this configuration is broken")

    study, log = search(tmp_path, plan(trials=2), TrialResources(), broken)
    assert [record.status for record in study.records()] == ["error", "finished"]
    assert "this configuration is broken" in study.record(1).reason
    assert ("ended", 1, "error") in log.events


def test_what_is_repeated_keeps_its_checkpoints_twice_where_trials_do(tmp_path):
    folders = SearchFolders(tmp_path / "a search", f"file://{tmp_path}/{quote('a copy')}")
    folder = folders.root / "race" / "002" / "seed-1"
    ((_, outcome),) = train_each({folder: BASE}, TrialResources(), folders=folders)
    assert outcome.status == "finished"
    copied = tmp_path / "a copy" / "race" / "002" / "seed-1"
    assert sorted(path.name for path in (copied / "checkpoints").iterdir()) == sorted(
        path.name for path in (folder / "checkpoints").iterdir()
    )


def test_a_run_whose_process_is_lost_too_often_is_one_line_and_the_others_are_ended(tmp_path):
    def lost(config, directory, resources, limit, policy):
        (tmp_path / f"{directory.name}-{len(list(tmp_path.iterdir()))}").touch()
        if directory.name == "lost":
            os._exit(1)
        time.sleep(600)

    runs = {tmp_path / name: BASE for name in ("lost", "slow")}
    with pytest.raises(WorkerError, match=r"was lost too often .*--resume"):
        dict(_each(lost, runs, TrialResources(), 2, None))
    assert sum(path.name.startswith("lost") for path in tmp_path.iterdir()) == 1 + RETRIES
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "the slow run goes on"
        time.sleep(0.2)
