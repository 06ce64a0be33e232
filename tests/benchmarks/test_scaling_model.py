"""The model of a step on many workers, against what the workers of a real run exchange."""

from collections import Counter

import pytest
from torch import distributed as dist

from colotride.models import build_model
from colotride.presets import preset
from colotride.training.trainer import Trainer
from scripts.benchmarks.scaling_model import (
    RESNET_18,
    Fabric,
    Step,
    efficiency,
    exchange_of,
    measured_fabric,
    step_seconds,
    weak_scaling,
)
from tests.commands import ROOT
from tests.process_groups import in_processes
from tests.training.test_trainer import CPU, images, small

PAIRS, DIM = 8, 8
IDEAL = Fabric("as fast as thought", 1e30, 0.0)


def exchanged(group, phase, steps):
    """Kind and bytes of everything that one batch exchanges, and the trained weights."""
    seen = []
    gather, reduce = dist.all_gather_into_tensor, dist.all_reduce

    def counted_gather(whole, part):
        seen.append(("gather", part.numel() * part.element_size()))
        return gather(whole, part)

    def counted_reduce(total):
        seen.append(("sum", total.numel() * total.element_size()))
        return reduce(total)

    dist.all_gather_into_tensor, dist.all_reduce = counted_gather, counted_reduce
    # Steps too small to reach the stop at C = 0.
    changes = {"pgd.steps": steps, "pgd.step_size": 1e-5, "pgd.ramp": "constant", "defense.phases": phase}
    config = small(**changes, **{"data.pairs_per_epoch": PAIRS, "training.epochs": 1, "model.freeze_batchnorm": True})
    trainer = Trainer(config, images(), None, device=CPU, group=group)
    trainer.run()
    return seen, sum(one.numel() for one in trainer.model.parameters() if one.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["candidates", "anchor"])
def test_a_real_step_exchanges_what_the_model_says(tmp_path, phase):
    (seen, weights), _ = in_processes(exchanged, 2, tmp_path, phase, 3)
    step = Step(1.0, PAIRS // 2, DIM, weights, 3, phase)
    model = exchange_of(step, workers=2)
    gathers = [size for kind, size in seen if kind == "gather"]
    assert (len(gathers), sum(gathers)) == (model.gathers, model.gathered)
    sums = Counter(size for kind, size in seen if kind == "sum")
    # On a CPU every PGD step also asks whether anything still moves.
    sums[4] -= 3
    assert (sum(sums.values()), sum(size * count for size, count in sums.items())) == (model.sums, model.summed)


def test_nothing_is_lost_where_exchanging_costs_nothing_and_more_with_every_worker_where_it_does():
    step = Step(0.09, 56, 512, 11_400_000, 16, "candidates")
    assert step_seconds(step, 64, IDEAL) == pytest.approx(0.09)
    slow = Fabric("slow", 1e9, 1e-5)
    values = [efficiency([step], workers, slow) for workers in (1, 2, 8, 64)]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    # The gradient of 45.6 MB goes round twice but for one part: 2 x 7/8 of it at 1 GB/s.
    assert step_seconds(step, 8, Fabric("no wait", 1e9, 0.0)) == pytest.approx(0.09 + 0.0798 + 0.0019, abs=1e-3)


def test_the_page_shows_the_table_of_the_model():
    page = [line.replace(" ", "") for line in (ROOT / "docs/scaling.md").read_text().splitlines()]
    for line in weak_scaling().splitlines():
        assert line.startswith("| ---") or line.replace(" ", "") in page


def test_the_weights_are_those_of_the_network():
    settings = preset("cub").model.model_copy(update={"weights": "none"})
    model = build_model(settings, channels=3, image_size=64, seed=0)
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == RESNET_18


@pytest.mark.slow
def test_the_connection_of_two_processes_can_be_measured(tmp_path):
    one, other = in_processes(measured_fabric, 2, tmp_path, 1_000_000, 5)
    assert 1e7 < one.bandwidth < 1e12
    assert 0 < other.latency < 1
