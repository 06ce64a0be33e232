"""Image towers of open_clip, read from a folder in the layout of its repositories."""

import json

import pytest
import torch
from safetensors.torch import save_file

from colotride.errors import ModelError
from colotride.external_models import load_external_model
from colotride.models import ModelSettings, build_model
from tests.backbones.tiny_clip import TINY, embedded
from tests.toys import random_images

open_clip = pytest.importorskip("open_clip")


@pytest.fixture
def folder(tmp_path):
    """A tiny CLIP with known weights, as a repository of the hub holds one."""
    place = tmp_path / "clip"
    place.mkdir()
    (place / "open_clip_config.json").write_text(json.dumps(TINY))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.create_model(f"local-dir:{place}", load_weights=False)
    save_file(model.state_dict(), place / "open_clip_model.safetensors")
    return place, model.eval()


def build(place, image_size=32, **values):
    settings = ModelSettings(architecture=f"open_clip:local-dir:{place}", **values)
    return build_model(settings, channels=3, image_size=image_size, seed=0).eval()


def test_a_repository_gives_its_own_embeddings_in_training_and_in_evaluation(folder):
    place, clip = folder
    images = random_images(2, (3, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(build(place, embedding_dim=16, weights="pretrained")(images), embedded(clip, images))
        evaluated = load_external_model(f"open_clip:local-dir:{place}")
        torch.testing.assert_close(evaluated(images), embedded(clip, images))


def test_another_width_is_one_more_layer(folder):
    assert build(folder[0], embedding_dim=8)(random_images(2, (3, 32, 32))).shape == (2, 8)


@pytest.mark.parametrize("half", [False, True])
def test_a_file_may_hold_the_whole_clip_or_its_image_half(folder, tmp_path, half):
    place, clip = folder
    changed = {name: value * 1.5 for name, value in (clip.visual if half else clip).state_dict().items()}
    torch.save(changed, tmp_path / "robust.pt")
    images = random_images(2, (3, 32, 32))
    model = build(place, embedding_dim=16, weights=str(tmp_path / "robust.pt"))
    clip.load_state_dict({f"visual.{name}" if half else name: value for name, value in changed.items()}, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(model(images), embedded(clip, images))


def test_position_embeddings_of_a_file_follow_the_size_of_the_images(folder, tmp_path):
    place, clip = folder
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    model = build(place, image_size=64, embedding_dim=16, weights=str(tmp_path / "clip.pt"))
    assert model.backbone.positional_embedding.shape == (65, 32)
    assert torch.equal(model.backbone.conv1.weight, clip.visual.conv1.weight)


def test_unknown_names_tags_and_repositories_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"open_clip has no network 'ViT-B-33' \(did you mean ViT-B-32"):
        ModelSettings(architecture="open_clip:ViT-B-33")
    settings = ModelSettings(architecture="open_clip:ViT-B-32", weights="pretrained")
    with pytest.raises(ModelError, match=r"has \d+ sets of weights; give --run\.model\.weights one of .*openai"):
        build_model(settings, channels=3, image_size=224, seed=0)
    with pytest.raises(ModelError, match="cannot be made") as error:
        build(tmp_path / "nowhere", weights="pretrained")
    assert "\n" not in str(error.value)
