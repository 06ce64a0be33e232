import subprocess
import sys

import pytest
import torch
from rich.console import Console

from colotride.config import config_text
from colotride.distributed.ray_cluster import start_ray
from colotride.errors import ModelError, SearchError
from colotride.presets import preset
from colotride.tune.api import prepare
from colotride.tune.packing import MARGIN, Peak, largest, measured_peak, memory_of, share_of_gpu
from colotride.tune.resources import TrialResources, capacity
from colotride.tune.space import build_space
from tests.tune.searches import plan_of

GIB = 2**30

ALONE = """
import sys
from pathlib import Path
import torch
from colotride.config import load_config
from colotride.data.splits import load_splits
from colotride.training.trainer import Trainer

config = load_config(Path(sys.argv[1]))
splits = load_splits(config.data)
Trainer(config, splits.train, splits.validation, device=torch.device("cpu")).run()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize(("used", "total", "trials"), [(3, 24, 6), (11, 24, 1), (24, 24, 1), (1, 141, 122)])
def test_as_many_trials_share_a_gpu_as_fit_with_some_room(used, total, trials):
    share = share_of_gpu(Peak(used * GIB, total * GIB))
    assert share == pytest.approx(1 / trials)
    assert capacity(TrialResources(1, share), [{"CPU": 999.0, "GPU": 1.0}]) == trials
    assert trials == 1 or trials * used * MARGIN <= total


def test_a_machine_without_a_gpu_is_packed_by_its_memory():
    resources = TrialResources(1, memory=memory_of(Peak(4 * GIB, 0)))
    assert capacity(resources, [{"CPU": 16.0, "memory": 24.0 * GIB}]) == 5
    assert capacity(resources, [{"CPU": 2.0, "memory": 24.0 * GIB}]) == 2
    assert resources.request()["memory"] == pytest.approx(MARGIN * 4 * GIB, abs=1)
    with pytest.raises(SearchError, match=r"needs 4\.6 GiB of memory and no machine has more than 2\.0"):
        capacity(resources, [{"CPU": 16.0, "memory": 2.0 * GIB}])
    with pytest.raises(SearchError, match="found no GPU"):
        share_of_gpu(Peak(GIB, 0))


def test_a_trial_with_workers_is_not_measured():
    plan = plan_of(gpus_per_trial="auto", workers_per_trial=2)
    with pytest.raises(SearchError, match="auto measures a trial in one process; give 1 with --workers-per-trial"):
        prepare(plan, Console(quiet=True))


def test_a_space_that_varies_the_batch_is_measured_at_the_largest(tmp_path):
    base = preset("digits")
    file = tmp_path / "space.yaml"
    file.write_text("parameters:\n  data.pairs_per_batch: {low: 8, high: 48}\n")
    assert largest(build_space(base, file=file), base).data.pairs_per_batch == 48
    file.write_text("parameters:\n  data.pairs_per_batch: {values: [16, 64, 8]}\n")
    assert largest(build_space(base, file=file), base).data.pairs_per_batch == 64
    assert largest(build_space(base), base) == base


def test_a_trial_that_shares_a_gpu_may_not_use_more_than_its_share(monkeypatch):
    limits = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    packed = TrialResources(1, 0.25, capped=True)
    packed.limit(exclusive=False)
    packed.limit(exclusive=True)
    TrialResources(1, 0.25).limit(exclusive=False)
    TrialResources(1, 1.0, capped=True).limit(exclusive=False)
    TrialResources(1, 0.25, capped=True, beside=0.05).limit(exclusive=False)
    assert limits == [0.25, 1.0, 0.2], "neither one that is tried again alone, nor one whose share was chosen by hand"


@pytest.mark.slow
def test_the_peak_is_what_the_same_batches_take_in_a_process_of_their_own(tmp_path):
    config = preset("digits").with_values({"data.hold_out_validation": True, "data.pairs_per_batch": 64})
    start_ray()
    found = measured_peak(config, "cpu")
    assert found.total == 0
    path = tmp_path / "small.yaml"
    path.write_text(
        config_text(
            config.with_values(
                {
                    "training.epochs": 1,
                    "data.pairs_per_epoch": 128,
                    "pgd.steps": 1,
                    "validation.steps": 1,
                }
            )
        )
    )
    done = subprocess.run([sys.executable, "-c", ALONE, path], capture_output=True, text=True, check=True)
    with pytest.raises(
        ModelError, match=r"^training\.layer_decay 0\.5: the network has no blocks to tell apart; set it to 1$"
    ):
        measured_peak(config.with_values({"training.layer_decay": 0.5}), "cpu")
    # Ray itself takes some memory in its process.
    assert 0.9 < found.used / (1024 * int(done.stdout)) < 1.5
