"""Steps that are refined while a run trains, where its perturbation has become weak."""

import pytest

from colotride.cli.train import epoch_line
from colotride.errors import ConfigurationError
from colotride.training.adaptive_steps import AdaptiveSteps
from colotride.training.records import EpochRecord
from tests.defenses.scenes import LATE, healthy
from tests.defenses.test_cheap_perturbations import EPSILON, RippledModel, act
from tests.toys import FlatModel
from tests.training.test_trainer import small, train, values_of, weights

WEAK = {
    "pgd.adaptive_steps": True,
    "pgd.steps": 1,
    "pgd.step_size": 0.001,
    "pgd.ramp": "constant",
    "training.epochs": 6,
}
"""Steps so small that they are weak however often they are halved."""


def test_steps_are_doubled_until_the_perturbation_is_strong_again():
    defense = act(steps=1, step_size=EPSILON, adaptive_steps=True)
    steps = AdaptiveSteps(defense, defense.context.pgd, seed=0)
    model, found = RippledModel(), []
    for epoch in range(6):
        steps.end_epoch(model, healthy(), LATE.__class__(epoch, 6, epoch, steps.refinement))
        found.append(steps.diagnostics["perturbation_strength"])
    assert found[0] < 0.45
    assert found[-1] > 0.5
    assert 2 <= steps.steps <= 8


def test_a_strong_perturbation_stays_as_it_is():
    defense = act(steps=1, step_size=EPSILON, adaptive_steps=True)
    steps = AdaptiveSteps(defense, defense.context.pgd, seed=0)
    steps.end_epoch(FlatModel(), healthy(), LATE)
    assert steps.steps == 1
    assert steps.diagnostics["pgd_steps"] == 1


def test_nothing_is_measured_unasked():
    defense, passes = act(steps=1), []
    model = FlatModel()
    model.register_forward_hook(lambda *_: passes.append(1))
    AdaptiveSteps(defense, defense.context.pgd, seed=0).end_epoch(model, healthy(), LATE)
    assert not passes


def test_a_defense_without_an_objective_is_refused():
    class Foreign:
        def batch_loss(self, model, batch, info, generator): ...
        def state_dict(self): ...
        def load_state_dict(self, state): ...

    with pytest.raises(ConfigurationError, match="Foreign"):
        AdaptiveSteps(Foreign(), act(adaptive_steps=True).context.pgd, seed=0)


def test_a_run_records_what_it_found_and_trains_with_more_steps_from_then_on():
    _, outcome = train(small(**WEAK))
    steps = [record.diagnostics["pgd_steps"] for record in outcome.history]
    assert steps == [1, 2, 4, 8, 16, 16]
    passes = [record.passes for record in outcome.history]
    assert passes[-1] > 2 * passes[0]


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_run_goes_on_with_the_steps_it_had(tmp_path, epoch):
    whole, expected = train(small(**WEAK))
    seen = []
    config = small(**WEAK)
    train(config, tmp_path, on_epoch=seen.append, should_stop=lambda: len(seen) >= epoch)
    resumed, outcome = train(config, tmp_path)
    assert weights(resumed).equal(weights(whole))
    assert values_of(outcome.history) == values_of(expected.history)


def test_the_line_of_an_epoch_says_when_steps_are_doubled():
    shown = {"loss": 0.1, "distance_anchor_positive": 1.0, "distance_anchor_negative": 1.1, "collapseness": -0.1}
    weak = EpochRecord(1, 8, 1.0, shown | {"perturbation_strength": 0.21, "pgd_steps": 1.0})
    assert "strength 0.21 with 1 step, now doubled" in epoch_line(weak)
    strong = EpochRecord(1, 8, 1.0, shown | {"perturbation_strength": 0.94, "pgd_steps": 2.0})
    assert "strength 0.94 with 2 steps  " in epoch_line(strong)
    assert "strength" not in epoch_line(EpochRecord(1, 8, 1.0, shown))
