"""Weights from a file: adopted only where names and shapes are those of the network, apart from its head."""

import hashlib
import pickle

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file

from colotride.errors import ModelError
from colotride.models import ModelSettings, build_model


@pytest.fixture(scope="module")
def weights():
    """A ResNet-18 whose every weight is known."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return torchvision.models.resnet18(weights=None).state_dict()


def build(path, architecture="resnet18", **values):
    settings = ModelSettings(architecture=architecture, embedding_dim=16, weights=str(path), **values)
    return build_model(settings, channels=3, image_size=32, seed=0)


def without(weights, ending):
    return {name: value for name, value in weights.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a.safetensors", lambda w: w),
        ("a.pth", lambda w: w),
        ("a.pt", lambda w: {"state_dict": {f"module.{name}": value for name, value in w.items()}, "epoch": 3}),
        ("a.safetensors", lambda w: without(w, ("fc.weight", "fc.bias"))),
        ("a.pth", lambda w: w | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}),
        ("a.pth", lambda w: without(w, "num_batches_tracked")),
    ],
    ids=["safetensors", "pth", "wrapped", "no head", "another head", "no counters"],
)
def test_everything_but_the_head_is_adopted(tmp_path, weights, name, change):
    path, content = tmp_path / name, change(weights)
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    got, fresh = (
        build(path).backbone.state_dict(),
        build_model(ModelSettings(embedding_dim=16, weights="none"), channels=3, image_size=32, seed=0),
    )
    for key, value in weights.items():
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            assert torch.equal(got[key], value), key
    assert got["fc.weight"].shape == fresh.backbone.fc.weight.shape


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: without(w, "conv1.weight"), "layer1.0.conv1.weight, layer1.1.conv1.weight and .* more missing"),
        (lambda w: w | {"extra.weight": torch.zeros(1)}, "extra.weight unknown"),
        (lambda w: w | {"bn1.bias": torch.zeros(3)}, r"bn1.bias \(3,\) instead of \(64,\) of another shape"),
    ],
)
def test_weights_of_another_network_are_refused_with_the_first_names(tmp_path, weights, change, complaint):
    save_file(change(weights), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=f"do not fit resnet18: .*{complaint}") as error:
        build(tmp_path / "other.safetensors")
    assert "\n" not in str(error.value)


def test_weights_of_another_architecture_are_refused(tmp_path, weights):
    save_file(weights, tmp_path / "resnet18.safetensors")
    with pytest.raises(ModelError, match=r"do not fit resnet34: .* missing"):
        build(tmp_path / "resnet18.safetensors", "resnet34")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pth", pickle.dumps({"fc.weight": Evil()}, protocol=2), "cannot be read"),
        ("a.safetensors", b"nothing of the kind", "cannot be read"),
        ("a.bin", b"", "cannot be read"),
    ],
)
def test_files_that_hold_something_else_are_one_line_and_run_nothing(tmp_path, capsys, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=complaint) as error:
        build(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "executed" not in capsys.readouterr().out


def test_what_is_not_weights_is_refused(tmp_path):
    torch.save({"epoch": 3, "losses": [1.0]}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="not a dictionary of tensors"):
        build(tmp_path / "a.pt")


def test_the_configuration_knows_the_file_by_its_content(tmp_path, weights, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file(weights, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.chdir(tmp_path)
    settings = ModelSettings(weights="a.safetensors")
    assert (settings.weights, settings.weights_sha256) == (str(path), digest)
    assert ModelSettings.model_validate(settings.model_dump()) == settings
    save_file(weights | {"fc.bias": torch.ones(1000)}, path)
    with pytest.raises(ModelError, match=f"the configuration says {digest[:12]}.*--run.model.weights-sha256 none"):
        build_model(settings, channels=3, image_size=32, seed=0)
    path.unlink()
    assert ModelSettings.model_validate(settings.model_dump()) == settings
    with pytest.raises(ModelError, match="cannot be read"):
        build_model(settings, channels=3, image_size=32, seed=0)
    with pytest.raises(ValidationError, match=r"a\.safetensors cannot be read"):
        ModelSettings(weights="a.safetensors")
    with pytest.raises(ValidationError, match="belongs to a file"):
        ModelSettings(weights="none", weights_sha256=digest)
