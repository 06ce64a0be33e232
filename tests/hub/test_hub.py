"""Publishing a run, and reading it back: from a folder, and from a hub on this machine."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import colotride as ct
from colotride.cli.arguments import parse
from colotride.cli.evaluate import subject_of
from colotride.cli.options.evaluate import Evaluate
from colotride.data.files import load_pictures
from colotride.errors import CheckpointError, ConfigurationError, ModelError
from colotride.evaluation.results import save_evaluation
from colotride.hub.address import HubAddress, local_copy
from colotride.hub.push import Card, push
from colotride.leaderboard.records import read_record
from colotride.training.runs import load_run
from tests.backbones.tiny_clip import TINY, embedded
from tests.commands import run
from tests.hub.imitation import serving
from tests.layouts import picture
from tests.short_runs import SHORT

FILES = {"config.yaml", "model.safetensors", "published.json", "record.json", "README.md"}
CARD = Card(name="A | <model>", licence="apache-2.0", authors="me")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "mine"
    found = ct.train("digits", defense="natural", directory=folder, overrides=SHORT)
    save_evaluation(ct.evaluate(found, queries=20, steps=2, bootstrap=50), folder / "evaluation")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache/hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_XET_CACHE", str(tmp_path / "cache/xet"))
        yield found


def same_model(one, other):
    weights = [load_run(folder)[1].state_dict() for folder in (one, other)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_folder_holds_the_model_its_scores_and_a_card_and_is_a_run(trained, tmp_path):
    folder = tmp_path / "published"
    assert push(trained, str(folder), CARD) == str(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert same_model(trained, folder)
    assert load_file(folder / "model.safetensors").keys() == load_run(trained)[1].state_dict().keys()
    assert str(trained.parent) not in (folder / "config.yaml").read_text()
    again = ct.evaluate(folder, queries=20, steps=2, bootstrap=0)
    recorded = read_record(folder / "record.json")
    assert (pytest.approx(recorded.ERS), pytest.approx(recorded.ARS)) == (again.ERS, again.ARS)
    picture = torch.rand(3, 1, 8, 8)
    assert torch.equal(ct.load(folder).embed(picture), ct.load(trained).embed(picture))


def test_the_card_says_what_a_reader_needs_and_the_hub_can_read_it(trained, tmp_path):
    push(trained, str(tmp_path / "published"), CARD)
    text = (tmp_path / "published/README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    record = read_record(tmp_path / "published/record.json")
    assert metadata["license"] == "apache-2.0"
    [result] = metadata["model-index"][0]["results"]
    assert {one["type"]: one["value"] for one in result["metrics"]}["ARS"] == pytest.approx(record.ARS, abs=0.01)
    body = text.split("---\n", 2)[2]
    for said in (
        "digits",
        "epsilon 32/255",
        "**strict**",
        "20 test images",
        f"| ARS | {record.ARS:.1f} |",
        record.digest,
    ):
        assert said in body
    assert "<model>" not in body
    assert "A \\| " in body


def test_what_is_pushed_to_the_hub_comes_back_the_same(trained, hub, tmp_path):
    where = push(trained, "hf://me/mine", CARD, private=True)
    assert where.startswith(hub.address)
    assert hub.private == {"me/mine"}
    assert set(hub.repositories["me/mine"][hub.newest("me/mine")]) == FILES
    folder = local_copy("hf://me/mine")
    assert same_model(trained, folder)
    assert not (folder / "README.md").exists(), "only what is read is fetched"
    picture = torch.rand(2, 1, 8, 8)
    assert torch.equal(ct.load("hf://me/mine").embed(picture), ct.load(trained).embed(picture))

    subject = subject_of(parse(Evaluate, ["--model", "hf://me/mine"]))
    assert (subject.run, subject.home) == (None, Path("runs/evaluation/hf-me-mine/digits")), "not in the hub's cache"

    # A second push makes a new revision; the first can still be named.
    first = hub.newest("me/mine")
    push(trained, "hf://me/mine", Card(name="Second", licence="mit"))
    assert read_record(local_copy("hf://me/mine") / "record.json").model == "Second"
    assert read_record(local_copy(f"hf://me/mine@{first}") / "record.json").model == CARD.name


@pytest.mark.slow
def test_the_commands_publish_evaluate_and_check(trained, hub, tmp_path):
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_none"}
    done = run("push", "mine", "hf://me/mine", "--license", "mit", cwd=trained.parent, **settings)
    assert done.returncode == 0, done.stderr
    assert "colotride evaluate --model hf://me/mine" in done.stdout
    # Both fetch into a cache of their own.
    words = ("--queries", "20", "--steps", "2", "--json", "--output", str(tmp_path / "out"))
    evaluated = run("evaluate", "--model", "hf://me/mine", *words, cwd=tmp_path, **settings)
    assert evaluated.returncode == 0, evaluated.stderr
    recorded = json.loads(hub.repositories["me/mine"][hub.newest("me/mine")]["record.json"])
    assert json.loads(evaluated.stdout)["ARS"] == pytest.approx(recorded["ARS"])
    (tmp_path / "record.json").write_text(json.dumps(recorded))
    checked = run("leaderboard", "check", "record.json", "--model", "hf://me/mine", cwd=tmp_path, **settings)
    assert checked.stdout.startswith("Reproduced: all "), checked.stderr


def test_a_repository_that_is_not_there_or_was_not_made_by_push_is_one_line(hub, trained):
    with pytest.raises(ModelError, match="hf://me/none cannot be fetched: there is no such repository"):
        local_copy("hf://me/none")
    push(trained, "hf://me/mine", CARD)
    with pytest.raises(ModelError, match="it has no such revision"):
        local_copy("hf://me/mine@" + "1" * 40)
    hub.repositories["me/other"] = {"2" * 40: {"README.md": b"hello"}}
    with pytest.raises(ModelError, match="was not made by colotride push"):
        local_copy("hf://me/other")
    hub.refuses = True
    with pytest.raises(ModelError, match="hf://me/new was not published: you may not do that"):
        push(trained, "hf://me/new", CARD)


@pytest.mark.parametrize(
    "change", [{"plugins": ["evil"]}, {"model": {"architecture": "evil:net"}}], ids=["plugin", "function"]
)
def test_a_strangers_configuration_imports_nothing(hub, trained, tmp_path, monkeypatch, change):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    push(trained, "hf://me/mine", CARD)
    files = hub.repositories["me/mine"][hub.newest("me/mine")]
    values = yaml.safe_load(files["config.yaml"])
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    files["config.yaml"] = yaml.safe_dump(values).encode()
    with pytest.raises(ModelError, match=r"would import .*evil"):
        ct.load("hf://me/mine")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_copy_is_refused(trained, tmp_path):
    push(trained, str(tmp_path / "published"), CARD)
    weights = tmp_path / "published/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_run(tmp_path / "published")
    weights.unlink()
    with pytest.raises(CheckpointError, match="is not whole"):
        load_run(tmp_path / "published")


@pytest.mark.parametrize("text", ["hf://", "hf://name", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a b/c"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigurationError, match="is no address on the hub"):
        HubAddress.parse(text)


def test_what_cannot_be_published_is_refused_and_leaves_nothing(trained, tmp_path):
    ct.train("digits", defense="natural", directory=tmp_path / "new", overrides=SHORT)
    with pytest.raises(CheckpointError, match="was not evaluated yet"):
        push(tmp_path / "new", str(tmp_path / "out"), CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(ConfigurationError, match="is there already"):
        push(trained, str(tmp_path / "new"), CARD)
    with pytest.raises(ConfigurationError, match="s3://x is no place to publish to"):
        push(trained, "s3://x", CARD)
    with pytest.raises(ConfigurationError, match="names a revision"):
        push(trained, "hf://me/mine@main", CARD)


def test_without_the_extra_one_line_names_it(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: push(trained, "hf://me/mine", CARD), lambda: local_copy("hf://me/mine")):
        with pytest.raises(ConfigurationError, match=re.escape("pip install 'colotride[hub]'")):
            use()


@pytest.mark.slow
def test_a_network_of_timm_is_fetched_from_the_hub(hub, tmp_path):
    timm = pytest.importorskip("timm")
    given = timm.create_model("test_resnet", num_classes=7).eval()
    timm.models.save_for_hf(given, tmp_path / "net", safe_serialization=True)
    hub.repositories["me/net"] = {"4" * 40: {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}}
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture(number, 200, np.random.default_rng(number)).save(tmp_path / f"photos/{number}.png")
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_none"}
    done = run("embed", "photos", "--model", "timm:hf-hub:me/net", "--out", "e.npy", cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    size = given.pretrained_cfg["input_size"][-1]
    paths = sorted(str(path) for path in (tmp_path / "photos").glob("*.png"))
    pixels = load_pictures(paths, round(size * 8 / 7), size)
    mean, std = (torch.tensor(given.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        features = given.forward_head(given.forward_features((pixels - mean) / std), pre_logits=True)
    expected = torch.nn.functional.normalize(features, dim=1)
    assert torch.allclose(torch.from_numpy(np.load(tmp_path / "e.npy")), expected, atol=1e-4)


@pytest.mark.slow
def test_an_image_tower_of_open_clip_is_fetched_from_the_hub(hub, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    place = tmp_path / "clip"
    place.mkdir()
    (place / "open_clip_config.json").write_text(json.dumps(TINY))
    clip = open_clip.create_model(f"local-dir:{place}", load_weights=False).eval()
    save_file(clip.state_dict(), place / "open_clip_model.safetensors")
    hub.repositories["me/clip"] = {"5" * 40: {path.name: path.read_bytes() for path in place.iterdir()}}
    (tmp_path / "photos").mkdir()
    picture(1, 60, np.random.default_rng(1)).save(tmp_path / "photos/one.png")
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_none"}
    words = ("embed", "photos", "--model", "open_clip:hf-hub:me/clip", "--out", "e.npy")
    done = run(*words, cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    size = TINY["model_cfg"]["vision_cfg"]["image_size"]
    pixels = load_pictures([tmp_path / "photos/one.png"], round(size * 8 / 7), size)
    expected = embedded(clip, pixels)
    assert torch.allclose(torch.from_numpy(np.load(tmp_path / "e.npy")), expected, atol=1e-4)
