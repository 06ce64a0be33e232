import math

import pytest
import torch

from colotride.training.optimizer import learning_rate_factor
from colotride.training.runs import load_run
from colotride.training.trainer import Trainer
from tests.training.test_trainer import CPU, images, small, train, values_of, weights

AVERAGED = {"training.weight_average": 0.9, "training.schedule": "cosine"}


def followed(config):
    """A run, and its weights at the beginning and after every batch."""
    trainer = Trainer(config, images(), None, device=CPU)
    seen = [weights(trainer).clone()]
    trainer.run(on_step=lambda *_: seen.append(weights(trainer).clone()))
    return trainer, seen


def test_the_saved_weights_are_the_moving_average_of_all_batches():
    config = small(**AVERAGED)
    averaged, _ = followed(config)
    _, seen = followed(config.with_values({"training.weight_average": 0.0}))
    expected = seen[0]
    for step, now in enumerate(seen[1:], 1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * now
    torch.testing.assert_close(weights(averaged), expected, rtol=1e-5, atol=1e-6)
    assert (weights(averaged) - seen[-1]).abs().max() > 1e-4


@pytest.mark.parametrize("batches", [1, 5, 12])
def test_an_interrupted_run_goes_on_from_the_weights_that_were_trained(tmp_path, batches):
    config = small(**AVERAGED)
    whole, expected = train(config, validation=images(seed=1))
    calls = iter(range(1000))
    train(config, tmp_path, images(seed=1), should_stop=lambda: next(calls) == batches)
    resumed, outcome = train(config, tmp_path, images(seed=1))
    assert torch.equal(weights(whole), weights(resumed))
    assert values_of(outcome.history) == values_of(expected.history)
    again, _ = train(config, tmp_path, images(seed=1))
    assert torch.equal(weights(whole), weights(again))
    _, loaded = load_run(tmp_path)
    kept = torch.cat([value.flatten() for value in loaded.state_dict().values()])
    assert torch.equal(kept, weights(whole)), "the run's folder holds the averaged weights"


def test_the_averaged_weights_are_validated():
    last = small(**{"training.epochs": 1, "training.learning_rate": 0.05})
    averaged = last.with_values({"training.weight_average": 0.999})
    seen = [train(config, validation=images(seed=1))[1].history[-1] for config in (last, averaged)]
    assert seen[0].diagnostics == seen[1].diagnostics, "the average changes nothing in training"
    assert seen[0].validation != seen[1].validation


@pytest.mark.parametrize("done", [0.0, 0.25, 0.5, 0.75])
def test_the_cosine_schedule_is_its_formula(done):
    assert learning_rate_factor("cosine", done) == pytest.approx(math.cos(math.pi * done / 2) ** 2)
    assert learning_rate_factor("constant", done) == 1


def test_the_learning_rate_follows_the_schedule():
    config = small(**{"training.schedule": "cosine", "training.epochs": 2, "training.learning_rate": 0.01})
    trainer = Trainer(config, images(), None, device=CPU)
    rates = []
    trainer.run(on_step=lambda *_: rates.append(trainer._optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * batch / len(rates))) for batch in range(len(rates))])
