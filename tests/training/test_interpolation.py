"""A model between two others has weights between theirs, and is a run to everything."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import colotride as ct
from colotride.config import load_config, save_config
from colotride.errors import CheckpointError, ConfigurationError, StorageError
from colotride.hub.push import Card, push
from colotride.models import build_model
from colotride.training.interpolation import _check
from colotride.training.runs import load_run, save_published, start_of
from tests.commands import run
from tests.short_runs import SHORT


def train(directory, defense, **overrides):
    """A run of a second."""
    settings = {**SHORT, "pgd.steps": 1, **overrides}
    return ct.train("digits", defense=defense, overrides=settings, directory=directory)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A natural and a robust run from the same start."""
    folder = tmp_path_factory.mktemp("pair")
    return train(folder / "natural", "natural"), train(folder / "robust", "colo-tride")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_weight_lies_between_those_of_the_two(pair, share, tmp_path):
    first, second = pair
    made = ct.interpolate(first, second, share=share, directory=tmp_path / "between")
    config, model = load_run(made)
    assert config.defense.name == "colo-tride"
    assert not model.training
    state, others = model.state_dict(), (first.model.state_dict(), second.model.state_dict())
    for name, value in state.items():
        expected = (1 - share) * others[0][name].double() + share * others[1][name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    assert share in (0.0, 1.0) or not torch.equal(model.backbone[0].weight, second.model.backbone[0].weight)
    assert json.loads((made / "published.json").read_text())["origin"] == (
        f"{1 - share:g} of natural and {share:g} of robust"
    )


def test_the_two_are_left_as_they_were_and_the_model_is_a_run(pair, tmp_path):
    first, second = pair
    before = [load_run(one.directory)[1].state_dict() for one in pair]
    made = ct.interpolate(first.directory, second.directory, share=0.5, directory=tmp_path / "deep" / "between")
    for one, known in zip(pair, before, strict=True):
        for name, value in load_run(one.directory)[1].state_dict().items():
            assert torch.equal(value, known[name])
    whole = ct.interpolate(first, second, share=1, directory=tmp_path / "whole")
    asked = {"queries": 16, "steps": 2}
    assert ct.evaluate(whole, **asked).scores() == ct.evaluate(second, **asked).scores()
    assert sorted(path.name for path in made.iterdir()) == ["config.yaml", "model.safetensors", "published.json"]
    assert [path.name for path in made.parent.iterdir()] == ["between"]
    again = ct.interpolate(made, second, share=0.5, directory=tmp_path / "three-quarters")
    direct = ct.interpolate(first, second, share=0.75, directory=tmp_path / "at-once")
    for name, value in load_file(again / "model.safetensors").items():
        torch.testing.assert_close(value, load_file(direct / "model.safetensors")[name])


def test_what_is_published_says_of_what_it_was_made(pair, tmp_path):
    from colotride.evaluation.results import save_evaluation

    made = ct.interpolate(*pair, share=0.5, directory=tmp_path / "between")
    save_evaluation(ct.evaluate(made, queries=16, steps=2), made / "evaluation")
    push(made, str(tmp_path / "published"), Card("Between", "other"))
    assert "| weights | 0.5 of natural and 0.5 of robust |" in (tmp_path / "published/README.md").read_text()
    assert json.loads((tmp_path / "published/published.json").read_text())["origin"].startswith("0.5 of natural")
    assert (
        "0.5 of natural and 0.5 of robust; the second by colo-tride, 1 epochs"
        in (json.loads((tmp_path / "published/record.json").read_text())["provenance"])
    )
    again = ct.interpolate(tmp_path / "published", pair[0], share=0.25, directory=tmp_path / "again")
    assert "0.75 of published (0.5 of natural and 0.5 of robust) and 0.25 of natural" in (
        (again / "published.json").read_text()
    )


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_of_its_range_is_refused(pair, share, tmp_path):
    with pytest.raises(ConfigurationError, match="outside"):
        ct.interpolate(*pair, share=share, directory=tmp_path / "between")
    assert not (tmp_path / "between").exists()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"seed": 1}, "seed, from which new layers start (0 and 1)"),
        ({"model.embedding_dim": 32}, "embedding_dim"),
        ({"data.image_size": 7}, "image size"),
    ],
)
def test_nothing_lies_between_models_of_different_starts(pair, overrides, named, tmp_path):
    other = train(tmp_path / "other", "natural", **overrides)
    with pytest.raises(CheckpointError) as refused:
        ct.interpolate(pair[0], other, share=0.5, directory=tmp_path / "between")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def with_setting(run, directory, **values):
    """A copy of a run that says it was made with other settings."""
    shutil.copytree(run.directory, directory)
    save_config(
        run.config.with_values({key.replace("__", "."): value for key, value in values.items()}),
        directory / "config.yaml",
    )
    return directory


@pytest.mark.parametrize(
    ("values", "named"),
    [({"model__weights": "pretrained"}, "start weights (none and pretrained)"), ({"model__lora_rank": 4}, "lora_rank")],
)
def test_what_two_runs_say_of_their_start_is_compared(pair, values, named, tmp_path):
    # Loading such a run would need a network that has these settings.
    one, other = pair[0].config, with_setting(pair[1], tmp_path / "other", **values)
    with pytest.raises(CheckpointError) as refused:
        _check(pair[0].directory, one, other, load_config(other / "config.yaml"))
    assert named in str(refused.value)


def test_a_published_run_remembers_the_file_that_it_started_from(pair, tmp_path):
    config = pair[0].config
    for name, start in (("first", "a" * 64), ("second", "b" * 64)):
        (tmp_path / name).mkdir()
        save_published(config, pair[0].model, tmp_path / name, start=start)
    with pytest.raises(CheckpointError, match="start weights"):
        ct.interpolate(tmp_path / "first", tmp_path / "second", share=0.5, directory=tmp_path / "between")
    assert start_of(tmp_path / "first", config) == "a" * 64
    assert start_of(pair[0].directory, config.with_values({"model.weights": "imagenet"})) == "pretrained"


def test_networks_for_images_of_other_channels_are_refused(pair, tmp_path):
    other = build_model(pair[0].config.model, channels=3, image_size=8, seed=0)
    (tmp_path / "other").mkdir()
    save_published(pair[0].config, other, tmp_path / "other")
    for first, second in ((pair[0].directory, tmp_path / "other"), (tmp_path / "other", pair[0].directory)):
        with pytest.raises(CheckpointError, match="channels"):
            ct.interpolate(first, second, share=0.5, directory=tmp_path / "between")
    assert not (tmp_path / "between").exists()


def test_a_run_of_a_module_object_is_refused(pair, tmp_path):
    own = dataclasses.replace(pair[0], module=torch.nn.Identity())
    with pytest.raises(CheckpointError, match="module object"):
        ct.interpolate(own, pair[1], share=0.5, directory=tmp_path / "between")


def test_its_training_cannot_go_on(pair, tmp_path):
    made = ct.interpolate(*pair, share=0.5, directory=tmp_path / "between")
    before = (made / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="cannot go on"):
        ct.train(load_config(made / "config.yaml"), directory=made)
    assert (made / "model.safetensors").read_bytes() == before
    assert not (made / "checkpoints").exists()


def test_a_folder_below_a_file_ends_in_one_line(pair, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        ct.interpolate(*pair, share=0.5, directory=tmp_path / "file" / "between")


def test_the_command_writes_the_same_model(pair, tmp_path):
    first, second = (str(one.directory) for one in pair)
    done = run("interpolate", first, second, "--share", "0.25", "--directory", "between", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "colotride evaluate --model between" in done.stdout
    expected = load_file(ct.interpolate(*pair, share=0.25, directory=tmp_path / "here") / "model.safetensors")
    for name, value in load_file(tmp_path / "between" / "model.safetensors").items():
        assert torch.equal(value, expected[name])
    asked = ["--queries", "16", "--steps", "2", "--no-track", "--json"]
    done = run("evaluate", "--model", "between", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.75 of natural and 0.25 of robust" in (tmp_path / "between/evaluation/report.html").read_text()
    again = run("interpolate", first, second, "--directory", "between", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (2, "error: between is there already; give a new folder\n")


def test_a_folder_that_is_there_is_left_alone(pair, tmp_path):
    with pytest.raises(ConfigurationError, match="there already"):
        ct.interpolate(*pair, share=0.5, directory=pair[0].directory)
    assert load_run(pair[0].directory)


def test_a_write_that_fails_leaves_nothing(pair, tmp_path, monkeypatch):
    def full(path, content):
        raise StorageError(f"{path.name}: no space left")

    monkeypatch.setattr("colotride.training.runs.write_atomically", full)
    with pytest.raises(StorageError, match="no space left"):
        ct.interpolate(*pair, share=0.5, directory=tmp_path / "between")
    assert list(tmp_path.iterdir()) == []
