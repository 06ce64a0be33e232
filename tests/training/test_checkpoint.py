import shutil

import pytest
import torch

from colotride.errors import CheckpointError, StorageError
from colotride.training.checkpoint import STATE, WEIGHTS, Checkpoint, checkpoints_in, load_newest, save_checkpoint


def at_step(step: int) -> Checkpoint:
    return Checkpoint(
        weights={"w": torch.full((3,), float(step))},
        optimizer={"state": {0: {"exp_avg": torch.ones(3)}}},
        defense={"previous": 0.25},
        progress={"step": step, "epoch": 1, "running": {"loss": torch.tensor(0.5)}},
        config_digest="abc",
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(at_step(7), tmp_path)
    got = load_newest(tmp_path)
    assert torch.equal(got.weights["w"], torch.full((3,), 7.0))
    assert torch.equal(got.optimizer["state"][0]["exp_avg"], torch.ones(3))
    assert got.defense == {"previous": 0.25}
    assert got.progress["running"]["loss"] == 0.5
    assert got.config_digest == "abc"


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10, 9):
        save_checkpoint(at_step(step), tmp_path, keep=2)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["000000010", "000000009"]


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert load_newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, name, damage):
    save_checkpoint(at_step(1), tmp_path)
    newest = save_checkpoint(at_step(2), tmp_path)
    content = bytearray((newest / name).read_bytes())
    if damage == "missing":
        (newest / name).unlink()
    elif damage == "truncated":
        (newest / name).write_bytes(content[:-5])
    else:
        content[-1] ^= 1
        (newest / name).write_bytes(content)
    assert load_newest(tmp_path).progress["step"] == 1


def test_no_whole_checkpoint_at_all_is_an_error_not_a_fresh_start(tmp_path):
    (save_checkpoint(at_step(1), tmp_path) / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        load_newest(tmp_path)


def test_a_write_that_was_cut_off_leaves_nothing_that_counts(tmp_path):
    save_checkpoint(at_step(1), tmp_path)
    shutil.copytree(tmp_path / "000000001", tmp_path / ".partial-x")
    assert [path.name for path in checkpoints_in(tmp_path)] == ["000000001"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        save_checkpoint(at_step(1), tmp_path / "file")
