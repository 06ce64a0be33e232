import contextlib
import dataclasses
import resource
import signal

import pytest
import torch

from colotride.config import RunConfig
from colotride.data.base import InMemoryImages
from colotride.defenses import DEFENSES
from colotride.errors import CheckpointError, ConfigurationError, StorageError
from colotride.models import build_model
from colotride.presets import preset, with_defense
from colotride.training.checkpoint import checkpoints_in
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.runs import load_run
from colotride.training.trainer import ONCE_PER_EPOCH, Trainer

CPU = torch.device("cpu")


def images(count=48, classes=4, seed=0, channels=1):
    """Noisy copies of one pattern per class: learnable within a few steps."""
    random = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, channels, 8, 8, generator=random)
    labels = torch.arange(count) % classes
    noisy = patterns[labels] + 0.2 * torch.randn(count, channels, 8, 8, generator=random)
    return InMemoryImages("toy", (noisy.clamp(0, 1) * 255).to(torch.uint8), labels)


def small(**values) -> RunConfig:
    return preset("digits").with_values(
        {
            "data.pairs_per_batch": 8,
            "model.embedding_dim": 8,
            "pgd.steps": 2,
            "training.epochs": 4,
            "validation.queries": 8,
            "validation.steps": 2,
        }
        | values
    )


def train(config, directory=None, validation=None, checkpoint_policy=ONCE_PER_EPOCH, **run):
    trainer = Trainer(
        config, images(), validation, device=CPU, directory=directory, checkpoint_policy=checkpoint_policy
    )
    return trainer, trainer.run(**run)


def weights(trainer):
    return torch.cat([value.flatten() for value in trainer.model.state_dict().values()])


def values_of(history):
    return [(record.epoch, record.step, record.diagnostics, record.validation) for record in history]


@pytest.mark.slow
@pytest.mark.parametrize("defense", DEFENSES)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(defense):
    config = small(defense={"name": defense})
    (one, first), (two, second) = train(config), train(config)
    assert torch.equal(weights(one), weights(two))
    assert values_of(first.history) == values_of(second.history)
    other, _ = train(config.with_values({"seed": 1}))
    assert not torch.equal(weights(one), weights(other))


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_stopping_after_any_epoch_and_resuming_changes_no_bit(tmp_path, epoch):
    config = small()
    whole, expected = train(config, validation=images(seed=1))
    done = []
    train(
        config,
        tmp_path,
        images(seed=1),
        on_epoch=done.append,
        should_stop=lambda: len(done) == epoch,
    )
    resumed, outcome = train(config, tmp_path, images(seed=1))
    assert len(done) == epoch
    assert torch.equal(weights(whole), weights(resumed))
    assert values_of(outcome.history) == values_of(expected.history)


@pytest.mark.slow
@pytest.mark.parametrize("defense", DEFENSES)
def test_every_defense_resumes_exactly(tmp_path, defense):
    config = with_defense(small(), defense).with_values({"pgd.steps": 2})
    whole, expected = train(config)
    calls = iter(range(1000))
    train(config, tmp_path, should_stop=lambda: next(calls) == 5)
    resumed, outcome = train(config, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert values_of(outcome.history) == values_of(expected.history)


@pytest.mark.parametrize("batches", [1, 4, 5])
def test_stopping_inside_an_epoch_and_resuming_changes_no_bit(tmp_path, batches):
    config = small()
    whole, expected = train(config)
    calls = iter(range(1000))
    _, stopped = train(config, tmp_path, should_stop=lambda: next(calls) == batches)
    assert stopped.status == "interrupted"
    assert '"status": "interrupted"' in (tmp_path / "summary.json").read_text()
    resumed, outcome = train(config, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert values_of(outcome.history) == values_of(expected.history)


@contextlib.contextmanager
def no_room_for_more_than(size):
    """The kernel refuses to let any file grow beyond this, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("room", [100, 20_000])
def test_a_full_disk_at_a_checkpoint_is_one_line_and_costs_nothing(tmp_path, room):
    config = small()
    whole, expected = train(config)
    done = []
    train(config, tmp_path, on_epoch=done.append, should_stop=lambda: len(done) == 1)
    with no_room_for_more_than(room), pytest.raises(StorageError, match="cannot be written"):
        train(config, tmp_path)
    resumed, outcome = train(config, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert values_of(outcome.history) == values_of(expected.history)


def test_a_truncated_checkpoint_is_passed_over_and_the_end_is_the_same(tmp_path):
    config = small()
    whole, _ = train(config)
    calls = iter(range(1000))
    train(config, tmp_path, should_stop=lambda: next(calls) == 8, checkpoint_policy=CheckpointPolicy(minutes=1e-9))
    newest = checkpoints_in(tmp_path / "checkpoints")[0] / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed, _ = train(config, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))


def test_checkpoints_within_an_epoch_change_no_bit_and_only_so_many_are_kept(tmp_path):
    config = small()
    whole, expected = train(config)
    kept, outcome = train(config, tmp_path, checkpoint_policy=CheckpointPolicy(minutes=1e-9, checkpoints=5))
    assert torch.equal(weights(whole), weights(kept))
    assert values_of(outcome.history) == values_of(expected.history)
    steps = [int(path.name) for path in checkpoints_in(tmp_path / "checkpoints")]
    assert steps == [12, 11, 10, 9, 8]


@pytest.mark.parametrize("bad", [{"minutes": 0.0}, {"minutes": -1.0}, {"checkpoints": 0}])
def test_keeping_nothing_is_refused(bad):
    with pytest.raises(ConfigurationError, match="--"):
        CheckpointPolicy(**bad)


def test_dropout_draws_the_same_after_a_resume(tmp_path):
    config = small(**{"model.architecture": "mobilenet_v3_small", "training.epochs": 2, "data.pairs_per_epoch": 8})
    whole, _ = train(config)
    done = []
    train(config, tmp_path, on_epoch=done.append, should_stop=lambda: len(done) == 1)
    resumed, _ = train(config, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))


def test_training_again_in_a_finished_run_does_nothing_and_says_so(tmp_path):
    config = small(**{"training.epochs": 1})
    first, _ = train(config, tmp_path)
    again, outcome = train(config, tmp_path, on_epoch=lambda record: pytest.fail("trained again"))
    assert outcome.status == "finished"
    assert torch.equal(weights(first), weights(again))


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    train(small(**{"training.epochs": 1}), tmp_path)
    with pytest.raises(CheckpointError, match="made with another configuration"):
        Trainer(small(**{"training.epochs": 1, "seed": 9}), images(), None, device=CPU, directory=tmp_path)


def test_a_moved_data_folder_does_not_stop_a_resume(tmp_path):
    train(small(**{"training.epochs": 1}), tmp_path)
    Trainer(
        small(**{"training.epochs": 1, "data.root": tmp_path / "elsewhere"}),
        images(),
        None,
        device=CPU,
        directory=tmp_path,
    )


def test_training_learns_to_tell_the_classes_apart():
    config = small(**{"defense": {"name": "natural"}, "training.epochs": 6})
    _, outcome = train(config)
    first, last = outcome.history[0].diagnostics, outcome.history[-1].diagnostics
    assert last["loss"] < first["loss"] / 2
    assert last["separability"] > first["separability"]


def test_phases_alternate_over_epochs_with_an_odd_number_of_batches():
    config = small(**{"data.pairs_per_epoch": 24})
    _, outcome = train(config)
    assert outcome.history[0].step == 3
    assert {"shift_candidates", "shift_anchor"} <= set(outcome.history[0].diagnostics)


def test_validation_is_made_every_so_many_epochs_and_at_the_end():
    config = small(**{"validation.every": 3})
    _, outcome = train(config, validation=images(seed=1))
    assert [bool(record.validation) for record in outcome.history] == [False, False, True, True]
    assert {"R@1", "ERS", "ARS"} <= set(outcome.history[-1].validation)


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        ("collapsed", {"health.collapse_distance": 2.0, "health.collapse_patience": 1, "training.margin": 1e-6}),
        ("diverged", {"health.gradient_limit": 1e-12}),
    ],
)
def test_a_lost_model_ends_the_run_with_its_reason(tmp_path, status, changes):
    _, outcome = train(small(**changes), tmp_path)
    assert outcome.status == status
    assert outcome.reason
    assert len(outcome.history) == 1
    assert (outcome.collapsed_at == 1) == (status == "collapsed")
    assert f'"status": "{status}"' in (tmp_path / "summary.json").read_text()
    _, again = train(small(**changes), tmp_path)
    assert again.status == status, "a lost run is not trained on by starting it again"


def test_nan_ends_the_run_with_its_reason():
    trainer = Trainer(small(), images(), None, device=CPU)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    assert trainer.run().status == "nan"


def test_a_finished_run_gives_back_its_configuration_and_model(tmp_path):
    config = small(**{"training.epochs": 1})
    trainer, _ = train(config, tmp_path)
    loaded, model = load_run(tmp_path)
    assert loaded == config
    assert not model.training
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), trainer.model.state_dict().values(), strict=True)
    )


def test_a_run_on_colour_images_gives_back_its_model_too(tmp_path):
    config = small(**{"training.epochs": 1})
    Trainer(config, images(channels=3), None, device=CPU, directory=tmp_path).run()
    _, model = load_run(tmp_path)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 8)


def test_a_resume_does_not_ask_for_imagenet_weights_again(tmp_path, monkeypatch):
    from colotride.training import trainer

    config = small(**{"training.epochs": 1, "model.architecture": "resnet18", "model.weights": "imagenet"})
    built = []

    def build(settings, **values):
        built.append(settings.weights)
        return build_model(settings.model_copy(update={"weights": "none"}), **values)

    monkeypatch.setattr(trainer, "build_model", build)
    for _ in range(2):
        Trainer(config, images(), None, device=CPU, directory=tmp_path).run()
    assert built == ["imagenet", "none"]


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="is not a run"):
        load_run(tmp_path)


def test_records_are_plain_values():
    _, outcome = train(small(**{"training.epochs": 1}))
    for value in dataclasses.asdict(outcome.history[0])["diagnostics"].values():
        assert type(value) is float
