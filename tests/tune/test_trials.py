"""Single trials in a real Ray, and what becomes of one that runs out of memory."""

import pytest
import ray
import torch

from colotride.presets import preset
from colotride.tune import objective
from colotride.tune.build import build_space
from colotride.tune.engine import Resources, capacity, run_search
from colotride.tune.memory import Memory
from colotride.tune.objective import TrialResources, run_trial
from colotride.tune.plan import Plan

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


def plan(**changes):
    return Plan(base=BASE, space=SPACE, first=(SPACE.point_of(BASE),), **{"trials": 1, **changes})


class Log:
    """Remembers what it is told."""

    def __init__(self):
        self.events = []

    def started(self, row):
        self.events.append(("started", row.number))

    def reported(self, row, result):
        self.events.append(("reported", row.number, result["epoch"]))

    def ended(self, row):
        self.events.append(("ended", row.number, row.status))


@pytest.fixture(scope="module")
def machine(monkeypatch_module):
    # A GPU that is only promised: nothing here computes on it.
    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield [{"CPU": 4.0, "GPU": 1.0}]
    ray.shutdown()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        yield patch


def search(folder, made, resources, machine, train=None):
    memory, log = Memory(folder, made), Log()
    at_once = capacity(resources, machine)
    place = TrialResources(folder / "trials", "cpu", 1, resources.workers)

    def trial(given, *, plan, place):
        # In the trial's own process.
        if train is not None:
            objective._here = train
        run_trial(given, plan=plan, place=place)

    run_search(memory, folder, resources, at_once, place, [log], trial)
    return memory, log


def test_a_trial_may_train_on_workers_of_its_own(machine, tmp_path):
    (alone, _), (several, log) = (
        search(tmp_path / name, plan(), Resources(1, 0.0, None, workers), machine)
        for name, workers in (("alone", 1), ("several", 2))
    )
    one, other = alone.row(1), several.row(1)
    assert other.status == one.status == "finished"
    assert other.cost == pytest.approx(one.cost, rel=0.01), "the cost counts the passes of all workers"
    assert other.curve == pytest.approx(one.curve, abs=15), "sums in another order, on a net that hardly learnt"
    assert [event for event in log.events if event[0] != "reported"] == [("started", 1), ("ended", 1, "finished")]


def test_a_trial_that_runs_out_of_gpu_memory_is_tried_again_alone_and_only_once(machine, tmp_path):
    here = objective._here

    def crowded(config, folder, checkpoint_policy, place, reporter, history):
        """Too little memory for the first trial beside others, for the second even alone."""
        with (folder.parent.parent / "tried").open("a") as log:
            log.write(f"{folder.name} {ray.get_runtime_context().get_assigned_resources()['GPU']}\n")
        alone = ray.get_runtime_context().get_assigned_resources()["GPU"] == 1
        if folder.name == "002" or not alone:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        here(config, folder, checkpoint_policy, place, reporter, history)

    memory, log = search(tmp_path, plan(trials=2), Resources(1, 0.25, None), machine, crowded)
    assert [row.status for row in memory.rows()] == ["finished", "out-of-memory"]
    assert "CUDA out of memory" in memory.row(2).reason
    tried = sorted(line for line in (tmp_path / "tried").read_text().splitlines())
    assert tried == ["001 0.25", "001 1.0", "002 0.25", "002 1.0"]
    ends = {event for event in log.events if event[0] == "ended"}
    assert ends == {("ended", 1, "finished"), ("ended", 2, "out-of-memory")}


def test_a_trial_whose_cost_is_spent_is_finished_with_what_it_has(machine, tmp_path):
    whole, _ = search(tmp_path / "whole", plan(), Resources(1, 0.0, None), machine)
    per_epoch = whole.row(1).costs[0]
    short, _ = search(tmp_path / "short", plan(max_cost=1.5 * per_epoch), Resources(1, 0.0, None), machine)
    row = short.row(1)
    assert (row.status, row.epoch) == ("finished", 1)
    assert row.cost == pytest.approx(per_epoch)
    assert "is spent" in row.reason
    assert row.curve == whole.row(1).curve[:1]


def test_a_trial_that_raises_is_an_error_with_its_reason_and_the_search_goes_on(machine, tmp_path):
    here = objective._here

    def broken(config, folder, checkpoint_policy, place, reporter, history):
        if folder.name == "001":
            raise ValueError("this configuration is broken")
        here(config, folder, checkpoint_policy, place, reporter, history)

    memory, log = search(tmp_path, plan(trials=2), Resources(1, 0.0, None), machine, broken)
    assert [row.status for row in memory.rows()] == ["error", "finished"]
    assert "this configuration is broken" in memory.row(1).reason
    assert ("ended", 1, "error") in log.events
