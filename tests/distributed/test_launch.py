"""A run in this process, and what is decided without Ray; Ray's workers are in test_ray_train."""

import sys

import pytest

from colotride.distributed.launch import evaluation_executor, prepare_training
from colotride.presets import preset

CONFIG = preset("digits").with_values(
    {
        "data.pairs_per_batch": 8,
        "data.pairs_per_epoch": 16,
        "pgd.steps": 1,
        "training.epochs": 2,
        "model.embedding_dim": 8,
        "data.hold_out_validation": False,
    }
)


def test_a_resumed_run_reports_the_epochs_of_before_once_each(tmp_path):
    first, again = [], []
    train = prepare_training(CONFIG, tmp_path / "run", device="cpu")
    outcome = train(on_epoch=first.append, should_stop=lambda: len(first) == 1)
    assert outcome.status == "interrupted"
    assert [record.epoch for record in first] == [1]
    outcome = prepare_training(CONFIG, tmp_path / "run", device="cpu")(on_epoch=again.append)
    assert outcome.status == "finished"
    assert [record.epoch for record in again] == [1, 2]
    assert again[0] == first[0]


def test_one_worker_needs_no_executor():
    assert evaluation_executor(lambda: None, 1) is None


@pytest.mark.slow
def test_ray_is_not_imported_for_a_run_in_this_process():
    import subprocess

    code = "import sys, colotride.distributed.launch; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
