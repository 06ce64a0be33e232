"""A step asks the device for nothing: whatever needs a value on the host would make a GPU's queue run empty.

There is no GPU here. What counts is which operations are called: the same ones are called on a GPU, where each of these waits.
"""

import traceback

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from colotride.defenses import DEFENSES, Batch, StepInfo, build_defense
from colotride.models import build_model
from colotride.pgd import FixedSteps
from colotride.presets import with_defense
from colotride.training.optimizer import build_optimizer
from colotride.training.records import RunningMeans
from colotride.training.trainer import defense_context
from tests.defenses.scenes import draw
from tests.toys import random_images
from tests.training.test_trainer import small

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive"}
"""Operations whose result, or the size of it, is a value on the host: `.item()`, `float()`, `if tensor`, `tensor[mask]`."""

MINERS = ("random", "semi-hard", "softhard")


class Waits(TorchDispatchMode):
    """Notes where our code makes the host wait."""

    def __init__(self):
        super().__init__()
        self.places = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for one in args
            if isinstance(one, list)
            for index in one
        )
        if name in WAITING or by_mask:
            ours = [frame for frame in traceback.extract_stack() if "/colotride/" in frame.filename]
            self.places.append(f"{name} in {ours[-1].name if ours else 'torch'}")
        return operation(*args, **(kwargs or {}))


def waits_of(name, miner, step, monkeypatch, **changes):
    # Only a CPU is asked whether anything can still move.
    monkeypatch.setattr(FixedSteps, "can_move", lambda rule, gradient: True)
    config = with_defense(small(**{"pgd.steps": 3}), name).with_values({"training.miner": miner} | changes)
    model = build_model(config.model, channels=1, image_size=8, seed=0).train()
    defense, optimizer = build_defense(config.defense, defense_context(config)), build_optimizer(model, config.training)
    batch = Batch(random_images(8, (1, 8, 8)), random_images(8, (1, 8, 8), seed=1), torch.arange(8) % 4)
    with Waits() as waits:
        loss, diagnostics = defense.batch_loss(model, batch, StepInfo(2, 4, step), draw())
        loss.backward()
        RunningMeans().add({"loss": loss, **diagnostics}, loss, 0)
        optimizer.step()
    return waits.places


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", list(DEFENSES))
def test_no_step_of_any_defense_waits_for_the_device(name, miner, step, monkeypatch):
    # The labels are on the CPU.
    assert set(waits_of(name, miner, step, monkeypatch)) <= {"_local_scalar_dense in check_classes"}


@pytest.mark.parametrize("changes", [{"pgd.random_start": 1.0}, {"training.loss": "multi-similarity"}])
def test_neither_do_noise_and_other_losses(changes, monkeypatch):
    assert set(waits_of("colo-tride", "semi-hard", 0, monkeypatch, **changes)) <= {
        "_local_scalar_dense in check_classes"
    }


def test_a_wait_would_be_seen():
    with Waits() as waits:
        numbers = torch.arange(4)
        assert numbers.sum().item() == 6
        assert len(numbers[numbers > 2]) == 1
    assert [place.split()[0] for place in waits.places] == ["_local_scalar_dense", "index"]
