"""The benchmark compares like with like: the textbook's steps perturb and train as ours do."""

import pytest
import torch

from colotride.defenses import CollapsenessSettings, DefenseContext, build_defense
from colotride.defenses.step import perturb_parts
from colotride.defenses.triplets import Batch, StepInfo, clean_diagnostics, mine_triplets
from colotride.pgd_settings import Budget, PGDSettings
from scripts.benchmarks.step import CYCLE, SETTINGS, UNITS, BenchmarkCase, _flops, measure_steps, step_benchmark
from scripts.benchmarks.textbook import MARGIN, MINERS, TextbookStep
from scripts.benchmarks.timing import Measured, ratio, side_by_side

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CASES = [BenchmarkCase("two-convolutions", 28, 8, 4), BenchmarkCase("resnet18", 32, 8, 4)]
BUDGET = Budget(8 / 255, 0.2 / 255, 4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.architecture)
@pytest.mark.parametrize("kind", ["ACT", "HM", "CAP", "ANP"])
def test_the_textbook_gives_the_same_images(case, kind):
    one = step_benchmark(case, CPU)
    pgd = PGDSettings(epsilon=BUDGET.epsilon, step_size=BUDGET.step_size, steps=BUDGET.steps, ramp="constant")
    context = DefenseContext(pgd, MARGIN, MINERS[kind], CollapsenessSettings())
    defense = build_defense(SETTINGS[kind], context)
    defense.load_state_dict({"previous_loss": torch.zeros(())})
    batch, info = Batch(one.anchor, one.positive, one.labels), StepInfo(0, 1, 0)
    random = torch.Generator().manual_seed(0)
    triplets = mine_triplets(one.model.eval(), batch, context, MARGIN, random)
    perturbation = defense.perturbation(triplets, clean_diagnostics(triplets, context.collapseness), info, random)
    ours = torch.cat(
        perturb_parts(one.model, triplets, defense.perturbed_parts(info), perturbation, BUDGET, 0.0, torch.Generator())
    )
    clean = (triplets.anchor, triplets.positive, triplets.negative)
    theirs = torch.cat(TextbookStep(kind, one.plain, BUDGET).perturbed(*clean))
    assert (ours - torch.cat(clean)).abs().max() > BUDGET.step_size, "the attack must not be saturated"
    # A pixel whose gradient is 0 within rounding may step either way.
    assert ((ours - theirs).abs() > 1e-6).float().mean() < 0.03


@pytest.mark.parametrize("kind", list(UNITS))
def test_both_train_on_the_same_gradients(kind):
    one = step_benchmark(CASES[1], CPU)
    one.ours(kind)()
    one.textbook(kind)()
    for (name, ours), theirs in zip(
        one.model.backbone.named_parameters(), one.plain.backbone.parameters(), strict=True
    ):
        assert theirs.grad.norm() > 0, name
        assert (ours.grad - theirs.grad).norm() < 0.1 * theirs.grad.norm(), name


def test_measuring_gives_a_row_for_every_step_and_for_the_cycle():
    seen = []
    rows = measure_steps(BenchmarkCase("two-convolutions", 8, 4, 2), 1, CPU, on_run=seen.append)
    assert {row.path for row in rows} == {"plain: it has no BatchNorm"}
    assert [row.step for row in rows] == [*UNITS, CYCLE]
    by_step = {row.step: row for row in rows}
    assert by_step[CYCLE].seconds == pytest.approx(by_step["CAP"].seconds + by_step["ANP"].seconds)
    assert all(row.textbook > 0 and row.limit > 0 and row.teraflops > 0 for row in rows)
    assert seen.count("ours CAP") == 2, "once to warm up, once measured"


def test_ratios_compare_the_fastest_rounds():
    slow, fast = Measured([90.0, 8.0, 9.0]), Measured([5.0, 2.0, 30.0])
    assert ratio(slow, fast) == 4.0


def test_works_run_by_turns_and_the_first_round_is_not_measured():
    ran = []
    measured = side_by_side({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 2, CPU)
    assert ran == ["a", "b"] * 3
    assert len(measured["a"].seconds) == 2
    ran.clear()
    side_by_side({"a": lambda: ran.append("a")}, 2, CPU, warm=False)
    assert ran == ["a", "a"]


def test_peak_memory_counts_what_a_work_needs_beyond_what_was_there():
    held = torch.ones(20_000_000)
    measured = side_by_side({"large": lambda: torch.ones(30_000_000).sum(), "small": lambda: held.sum()}, 1, CPU)
    assert 100e6 < measured["large"].peak_bytes < 160e6
    assert measured["small"].peak_bytes < 20e6


class Unseen:
    """A recorder whose replays no counter of operations sees, as it does not see those of a CUDA graph."""

    def serves(self, device):
        return True

    def record(self, step, device):
        step()
        return lambda: None


def test_the_arithmetic_of_recorded_steps_counts():
    one = step_benchmark(CASES[0], CPU)
    expected = _flops(one, ["CAP", "ANP"])
    one.model.recorder = Unseen()
    assert _flops(one, ["CAP", "ANP"]) == expected > 0
    assert isinstance(one.model.recorder, Unseen)
