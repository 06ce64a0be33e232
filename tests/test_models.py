import pytest
import torch
from torch import nn

from colotride.errors import ModelError
from colotride.models import ModelSettings, build_model
from tests.toys import random_images


def build(architecture="resnet18", seed=0, image_size=32, channels=3, **values):
    settings = ModelSettings(architecture=architecture, embedding_dim=16, weights="none", **values)
    return build_model(settings, channels=channels, image_size=image_size, seed=seed)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("resnet18", (3, 32, 32)), ("two-convolutions", (1, 28, 28)), ("two-convolutions", (1, 8, 8))],
)
def test_embeddings_are_unit_vectors_of_the_asked_width(architecture, shape):
    model = build(architecture, channels=shape[0], image_size=shape[1]).eval()
    embeddings = model(random_images(3, shape))
    assert embeddings.shape == (3, 16)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.backbone.fc.weight, same.backbone.fc.weight)
    assert not torch.equal(one.backbone.fc.weight, other.backbone.fc.weight)


def test_pixels_are_normalised_inside_the_model():
    model, images = build().eval(), random_images(2, (3, 32, 32))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    raw = model.backbone((images - mean) / std)
    torch.testing.assert_close(model(images), raw / raw.norm(dim=1, keepdim=True))


def test_grey_images_are_repeated_for_a_backbone_with_three_channels():
    model, grey = build().eval(), random_images(2, (1, 32, 32))
    torch.testing.assert_close(model(grey), model(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("frozen", [True, False])
def test_batchnorm_statistics_are_frozen_when_asked(frozen):
    model = build(freeze_batchnorm=frozen).train()
    before = model.backbone.bn1.running_mean.clone()
    model(random_images(4, (3, 32, 32)))
    assert torch.equal(model.backbone.bn1.running_mean, before) == frozen
    assert model.backbone.layer1.training


@pytest.mark.parametrize(
    "architecture",
    ["resnet50", "mobilenet_v3_small", "densenet121", "squeezenet1_1", "vit_b_16", "convnext_tiny", "googlenet"],
)
def test_the_last_layer_of_any_classifier_becomes_the_embedding(architecture):
    with torch.device("meta"):
        model = build(architecture, image_size=224)
        model.mean, model.std = model.mean.to("meta"), model.std.to("meta")
        assert model.eval()(torch.empty(2, 3, 224, 224)).shape == (2, 16)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="'resnet19' is neither 'two-convolutions' nor a torchvision classifier"):
        ModelSettings(architecture="resnet19")


def test_images_too_small_for_two_poolings_are_refused():
    with pytest.raises(ModelError, match="images of 3 px are too small"):
        build("two-convolutions", image_size=3)


def test_imagenet_weights_are_taken_from_the_cache(tmp_path, monkeypatch):
    """The real loading code of torchvision, with weights that this test put where a download would put them."""
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    source = torchvision.models.resnet18(weights=None)
    nn.init.constant_(source.conv1.weight, 0.125)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    name = torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(source.state_dict(), folder / name)
    settings = ModelSettings(embedding_dim=16, weights="imagenet")
    model = build_model(settings, channels=3, image_size=32, seed=0)
    assert (model.backbone.conv1.weight == 0.125).all()
    assert model.backbone.fc.out_features == 16


def test_imagenet_weights_out_of_reach_are_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"--run\.model\.weights none") as error:
        build_model(ModelSettings(), channels=3, image_size=32, seed=0)
    assert "\n" not in str(error.value)
