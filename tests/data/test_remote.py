"""Sets whose stores lie at an address: pushed once, fetched once per node, checked on arrival."""

import json
import logging
from pathlib import Path

import pytest
import torch

from colotride.data.base import class_name
from colotride.data.settings import DataSettings, absolute_root
from colotride.data.splits import load_splits, load_test, prepare_dataset
from colotride.errors import DataError
from tests.layouts import make_cub, make_fashion_mnist, make_sop, picture

MAKERS = {"cub": make_cub, "sop": make_sop, "fashion-mnist": make_fashion_mnist}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COLOTRIDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fetched"


def settings(name, root, **values):
    size = 28 if name == "fashion-mnist" else 16
    return DataSettings(name=name, root=root, stored_size=size, image_size=size, **values)


def everything(images):
    return images.pixels(torch.arange(len(images)))


def pushed(tmp_path, name="cub"):
    """A set made here and pushed to a shared disk; the address."""
    MAKERS[name](tmp_path / "made")
    address = f"file://{tmp_path}/shared/data"
    prepare_dataset(settings(name, tmp_path / "made"), address=address)
    return address


def equal_sides(one, other):
    for side in ("train", "test"):
        ours, theirs = getattr(one, side), getattr(other, side)
        assert ours.name == theirs.name
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(everything(ours), everything(theirs))


@pytest.mark.parametrize("name", MAKERS)
def test_a_pushed_set_is_the_one_it_was(tmp_path, name):
    address = pushed(tmp_path, name)
    hold = {"hold_out_validation": True, "validation_fraction": 0.5} if name == "cub" else {}
    here, there = (load_splits(settings(name, root, **hold)) for root in (tmp_path / "made", address))
    equal_sides(here, there)
    if hold:
        assert torch.equal(here.validation.labels, there.validation.labels)


def test_a_side_is_fetched_once_and_training_leaves_the_test_side_alone(tmp_path, cache):
    address = pushed(tmp_path)
    load_splits(settings("cub", address))
    (fetched,) = cache.glob("*.arrow")
    assert fetched.name.startswith("cub-train-")
    place = fetched.stat().st_ino
    for store in (tmp_path / "shared" / "data" / ".colotride").glob("cub-train-*.arrow"):
        store.unlink()
    load_splits(settings("cub", address))
    assert fetched.stat().st_ino == place


def test_a_fetched_side_that_was_damaged_here_is_fetched_again(tmp_path, cache):
    address = pushed(tmp_path)
    labels = load_test(settings("cub", address)).labels
    (fetched,) = cache.glob("cub-test-*.arrow")
    sound = fetched.read_bytes()
    place = sound.index(labels.numpy().tobytes())
    fetched.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
    assert torch.equal(load_test(settings("cub", address)).labels, labels)
    assert fetched.read_bytes() == sound


def test_a_set_that_was_pushed_anew_is_fetched_anew(tmp_path):
    address = pushed(tmp_path)
    before = everything(load_test(settings("cub", address)))
    listed = sorted((tmp_path / "made" / "CUB_200_2011" / "images").rglob("*.jpg"))
    listed[-1].write_bytes(listed[0].read_bytes())
    prepare_dataset(settings("cub", tmp_path / "made"), address=address)
    after = everything(load_test(settings("cub", address)))
    assert torch.equal(before[:-1], after[:-1])
    assert not torch.equal(before[-1], after[-1])


@pytest.mark.parametrize("damage", ["truncated", "another byte", "gone"])
def test_what_arrives_damaged_is_one_line_and_gets_no_name(tmp_path, cache, damage):
    address = pushed(tmp_path)
    (store,) = (tmp_path / "shared" / "data" / ".colotride").glob("cub-test-*.arrow")
    content = bytearray(store.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        store.unlink()
    else:
        store.write_bytes(content[:-1] if damage == "truncated" else content)
    with pytest.raises(DataError, match=address) as error:
        load_test(settings("cub", address))
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*.arrow"))
    store.unlink(missing_ok=True)
    prepare_dataset(settings("cub", tmp_path / "made"), address=address)
    assert len(load_test(settings("cub", address))) == 24


@pytest.mark.parametrize("address", ["file:///nowhere/at/all", "nonsense://x/y", "file://relative"])
def test_an_address_with_nothing_names_the_command_that_brings_it(address):
    with pytest.raises(DataError, match=r"colotride download cub --stored-size 16 --push") as error:
        load_splits(settings("cub", address))
    assert "\n" not in str(error.value)


def test_a_listing_that_is_something_else_is_one_line(tmp_path):
    address = pushed(tmp_path)
    (tmp_path / "shared" / "data" / ".colotride" / "cub-16px.json").write_text(json.dumps({"sides": [1]}))
    with pytest.raises(DataError, match="cannot be understood"):
        load_splits(settings("cub", address))


def test_one_s_own_images_without_a_training_side_can_be_pushed(tmp_path):
    import numpy as np

    for label in ("a", "b"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for index in range(2):
            picture(1, 20, np.random.default_rng(index)).save(tmp_path / "mine" / label / f"{index}.png")
    address = f"file://{tmp_path}/shared"
    prepare_dataset(settings("folder", tmp_path / "mine"), address=address)
    there = load_test(settings("folder", address))
    assert there.labels.tolist() == [0, 0, 1, 1]
    assert [class_name(there, label) for label in (0, 1)] == ["a", "b"]
    with pytest.raises(DataError, match="has no train side"):
        load_splits(settings("folder", address))


def test_an_address_stays_as_it_is_and_a_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings("cub", "s3://bucket/data").root == "s3://bucket/data"
    assert absolute_root(settings("cub", "s3://bucket/data").root) == "s3://bucket/data"
    assert absolute_root(settings("cub", "data").root) == tmp_path / "data"
    again = DataSettings.model_validate(settings("cub", "s3://bucket/data").model_dump(mode="json"))
    assert again.root == "s3://bucket/data"
    assert DataSettings.model_validate(settings("cub", "data").model_dump(mode="json")).root == Path("data")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_set_lives_on_s3(tmp_path, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        address = f"s3://bucket/data?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        make_cub(tmp_path / "made")
        prepare_dataset(settings("cub", tmp_path / "made"), address=address)
        keys = [item["Key"] for item in client.list_objects_v2(Bucket="bucket")["Contents"]]
        assert "data/.colotride/cub-16px.json" in keys
        equal_sides(*(load_splits(settings("cub", root)) for root in (tmp_path / "made", address)))
        with pytest.raises(DataError, match=r"colotride download sop"):
            load_splits(settings("sop", address))
    finally:
        server.stop()
