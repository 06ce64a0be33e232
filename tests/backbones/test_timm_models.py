"""Networks of timm by name: their own record decides pixels, size and head."""

import pytest
import torch
from torch.nn import functional

from colotride.errors import ModelError
from colotride.models import ModelSettings, build_model
from tests.toys import random_images

timm = pytest.importorskip("timm")


def build(name, image_size=64, **values):
    settings = ModelSettings(architecture=f"timm:{name}", **{"embedding_dim": 16, "weights": "none", **values})
    return build_model(settings, channels=3, image_size=image_size, seed=0).eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit", "test_nfnet"])
def test_the_head_becomes_the_embedding_and_the_pixels_are_those_of_the_record(name):
    model, images = build(name), random_images(2, (3, 64, 64))
    record = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (record.mean, record.std))
    with torch.no_grad():
        embeddings = model(images)
        expected = functional.normalize(model.backbone((images - mean) / std), dim=1)
    assert embeddings.shape == (2, 16)
    torch.testing.assert_close(embeddings, expected)


def test_without_an_embedding_layer_the_pooled_features_are_the_embedding():
    model, images = build("test_efficientnet", embedding_dim=None), random_images(2, (3, 64, 64))
    with torch.no_grad():
        pooled = model.backbone.forward_features((images - model.mean) / model.std).mean(dim=(2, 3))
        torch.testing.assert_close(model(images), functional.normalize(pooled, dim=1))


def test_position_embeddings_follow_the_size_of_the_images():
    """A transformer that was made for 160 px gives, at 160 px, what timm gives; at 64 px it has fewer positions."""
    model, images = build("test_vit", image_size=160, embedding_dim=None), random_images(1, (3, 160, 160))
    plain = timm.create_model("test_vit", num_classes=0).eval()
    plain.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(images), functional.normalize(plain((images - 0.5) / 0.5), dim=1))
    small = build("test_vit", image_size=64)
    assert small.backbone.pos_embed.shape[1] < model.backbone.pos_embed.shape[1]


def test_the_seed_decides_the_weights():
    one, same = build("test_resnet"), build("test_resnet")
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("resnet19", r"timm has no network 'resnet19' \(did you mean .*resnet18"),
        ("resnet18.no_such_weights", r"no weights 'no_such_weights' of resnet18; there are .*a1_in1k"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_ones(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        ModelSettings(architecture=f"timm:{name}")


def test_a_size_that_a_network_cannot_take_is_one_line():
    with pytest.raises(ModelError, match="gmlp_ti16_224 is made for images of 224 px, not 64") as error:
        build("gmlp_ti16_224", image_size=64)
    assert "\n" not in str(error.value)


def test_weights_out_of_reach_are_one_line_with_the_remedy(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"--run\.model\.weights FILE") as error:
        build("test_resnet", weights="pretrained")
    assert "\n" not in str(error.value)


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "timm" else find(name, *rest))
    with pytest.raises(ValueError, match=r"pip install 'colotride\[timm\]'"):
        ModelSettings(architecture="timm:test_resnet")
