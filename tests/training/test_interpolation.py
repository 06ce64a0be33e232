"""A model between two others has weights between theirs, and is a run to everything."""

import json

import pytest
import torch
from safetensors.torch import load_file

import colotride as ct
from colotride.errors import CheckpointError, ConfigurationError
from colotride.hub.push import Card, push
from colotride.training.runs import load_run
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
    before = [load_run(run.directory)[1].state_dict() for run in pair]
    made = ct.interpolate(first.directory, second.directory, share=0.5, directory=tmp_path / "deep" / "between")
    for run, known in zip(pair, before, strict=True):
        for name, value in load_run(run.directory)[1].state_dict().items():
            assert torch.equal(value, known[name])
    result = ct.evaluate(made, queries=16, steps=2)
    assert 0 <= result.ARS <= 100
    assert sorted(path.name for path in made.iterdir()) == ["config.yaml", "model.safetensors", "published.json"]
    assert [path.name for path in made.parent.iterdir()] == ["between"]
    again = ct.interpolate(made, second, share=0.5, directory=tmp_path / "three-quarters")
    direct = ct.interpolate(first, second, share=0.75, directory=tmp_path / "at-once")
    for name, value in load_file(again / "model.safetensors").items():
        torch.testing.assert_close(value, load_file(direct / "model.safetensors")[name])


def test_what_is_published_says_of_what_it_was_made(pair, tmp_path, monkeypatch):
    from colotride.evaluation.results import save_evaluation

    made = ct.interpolate(*pair, share=0.5, directory=tmp_path / "between")
    save_evaluation(ct.evaluate(made, queries=16, steps=2), made / "evaluation")
    push(made, str(tmp_path / "published"), Card("Between", "other"))
    assert "| weights | 0.5 of natural and 0.5 of robust |" in (tmp_path / "published/README.md").read_text()
    assert json.loads((tmp_path / "published/published.json").read_text())["origin"].startswith("0.5 of natural")


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


def test_a_folder_that_is_there_is_left_alone(pair, tmp_path):
    with pytest.raises(ConfigurationError, match="there already"):
        ct.interpolate(*pair, share=0.5, directory=pair[0].directory)
    assert load_run(pair[0].directory)
