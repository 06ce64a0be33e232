"""Networks of your own, by the name of a function; and runs that start from any of these."""

import sys

import pytest
import torch

import colotride as ct
from colotride.config import load_config
from colotride.errors import CheckpointError, ColoTrideError, ModelError
from colotride.models import ModelSettings, build_model
from colotride.presets import preset
from tests.toys import random_images

FUNCTION = """
from torch import nn

def make():
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8))

def wrong():
    return nn.Flatten(0)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_networks", None)


@pytest.mark.parametrize(("dim", "width"), [(8, 8), (None, 8), (5, 5)])
def test_the_width_is_the_function_s_own_unless_another_one_is_asked_for(package, dim, width):
    settings = ModelSettings(architecture="own_networks:make", embedding_dim=dim)
    model = build_model(settings, channels=1, image_size=8, seed=0)
    assert model(random_images(2, (1, 8, 8))).shape == (2, width)
    assert len(list(model.backbone.modules())) == (4 if width == 8 else 6)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("own_networks:missing", "cannot be made .AttributeError"),
        ("own_networks:wrong", r"returned \(128,\) for 2 images"),
        ("os:getcwd", "is a str"),
    ],
)
def test_functions_without_embeddings_are_one_line(package, name, complaint):
    with pytest.raises(ModelError, match=complaint) as error:
        build_model(ModelSettings(architecture=name), channels=1, image_size=8, seed=0)
    assert "\n" not in str(error.value)


def short(architecture, **values):
    return preset("digits").with_values(
        {
            "model.architecture": architecture,
            "model.embedding_dim": 8,
            "data.pairs_per_batch": 8,
            "data.pairs_per_epoch": 16,
            "pgd.steps": 1,
            "training.epochs": 1,
            "evaluation.steps": 1,
            "evaluation.queries": 4,
            "evaluation.bootstrap": 0,
            **values,
        }
    )


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_function_is_trained_loaded_and_evaluated(package, tmp_path):
    run = ct.train(short("own_networks:make"), directory=tmp_path / "run")
    net = ct.load(tmp_path / "run")
    assert same_weights(net.module, run.model)
    assert net.channels == 1
    assert net.embed(random_images(3, (1, 8, 8))).shape == (3, 8)
    assert ct.evaluate(tmp_path / "run").benign == ct.evaluate(run).benign


def test_a_run_of_a_file_needs_the_file_only_to_start(tmp_path):
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = timm.create_model("test_resnet").state_dict()
    path = tmp_path / "start.pth"
    torch.save(weights, path)
    values = {"model.weights": str(path), "model.freeze_batchnorm": True, "training.learning_rate": 1e-9}
    config = short("timm:test_resnet", **values)
    run = ct.train(config, directory=tmp_path / "run")
    # Adam's first steps are of the learning rate, so that the start is still to be seen in the end.
    torch.testing.assert_close(run.model.backbone.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])
    path.unlink()
    saved = load_config(tmp_path / "run" / "config.yaml")
    assert saved == config
    again = ct.train(saved, directory=tmp_path / "run")
    assert same_weights(again.model, run.model)
    assert ct.load(tmp_path / "run").embed(random_images(2, (3, 8, 8))).shape == (2, 8)
    moved = saved.with_values({"model.weights": "elsewhere/start.pth"})
    assert same_weights(ct.train(moved, directory=tmp_path / "run").model, run.model)
    with pytest.raises(ColoTrideError, match=r"elsewhere/start\.pth cannot be read"):
        ct.train(moved, directory=tmp_path / "new")
    torch.save(weights | {"fc.bias": torch.ones(1000)}, path)
    other = config.with_values({"model.weights_sha256": None})
    with pytest.raises(CheckpointError, match="another configuration"):
        ct.train(other, directory=tmp_path / "run")
