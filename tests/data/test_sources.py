import gzip
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from colotride.data.base import class_name, subset_of
from colotride.data.settings import DataSettings
from colotride.data.splits import load_splits, load_test
from colotride.errors import DataError
from tests.layouts import make_cars, make_cub, make_fashion_mnist, make_sop

MAKERS = {"cub": make_cub, "cars": make_cars, "sop": make_sop}


def settings(name, root, **values):
    sizes = {"digits": 8, "fashion-mnist": 28}
    size = sizes.get(name, 32)
    return DataSettings(**{"name": name, "root": root, "stored_size": size, "image_size": size} | values)


def everything(images):
    return images.pixels(torch.arange(len(images)))


def test_digits_are_scikit_learns_with_the_last_four_classes_for_the_test(tmp_path):
    splits = load_splits(settings("digits", tmp_path))
    source = load_digits()
    assert (len(splits.train), len(splits.test)) == (1083, 714)
    assert splits.train.labels.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.test.labels.unique().tolist() == [6, 7, 8, 9]
    place = int(np.flatnonzero(source.target >= 6)[5])
    expected = torch.from_numpy(source.images[place] * 255 / 16).round()
    assert torch.equal(splits.test.pixels(torch.tensor([5]))[0, 0].double(), expected)


@pytest.mark.parametrize("name", MAKERS)
def test_photographs_are_read_from_their_own_layout_with_their_classes(tmp_path, name):
    MAKERS[name](tmp_path)
    splits = load_splits(settings(name, tmp_path))
    classes = {"cub": 8, "cars": 8, "sop": 6}[name]
    assert splits.train.labels.unique().tolist() == list(range(1, classes // 2 + 1))
    assert splits.test.labels.unique().tolist() == list(range(classes // 2 + 1, classes + 1))
    for side in (splits.train, splits.test):
        pixels = everything(side)
        assert pixels.shape == (len(side), 3, 32, 32)
        # Images of a class look alike: each is nearest to another one of its own class.
        flat = pixels.flatten(1).float()
        away = torch.cdist(flat, flat).fill_diagonal_(torch.inf)
        assert torch.equal(side.labels[away.argmin(dim=1)], side.labels)


@pytest.mark.parametrize(("name", "expected"), [("cub", "Bird 5"), ("cars", "Car 5"), ("sop", "class 5")])
def test_classes_have_their_sources_names(tmp_path, name, expected):
    MAKERS[name](tmp_path)
    assert class_name(load_splits(settings(name, tmp_path)).test, 5) == expected
    stored_before = load_splits(settings(name, tmp_path)).test
    assert class_name(stored_before, 5) == expected
    assert class_name(subset_of(stored_before, torch.arange(2), "two"), 5) == expected


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_packed_or_not(tmp_path, packed):
    make_fashion_mnist(tmp_path, packed=packed)
    splits = load_splits(settings("fashion-mnist", tmp_path))
    assert (len(splits.train), len(splits.test)) == (60, 30)
    assert splits.train.labels[:12].tolist() == [*range(10), 0, 1]
    assert everything(splits.train).shape == (60, 1, 28, 28)


def test_fashion_mnist_agrees_with_torchvisions_reader(tmp_path):
    from torchvision.datasets import FashionMNIST

    make_fashion_mnist(tmp_path, packed=False)
    theirs = FashionMNIST(str(tmp_path), train=True, download=False)
    ours = load_splits(settings("fashion-mnist", tmp_path)).train
    assert torch.equal(everything(ours)[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


def test_training_does_not_read_the_test_side(tmp_path):
    make_sop(tmp_path)
    (tmp_path / "Stanford_Online_Products" / "Ebay_test.txt").unlink()
    splits = load_splits(settings("sop", tmp_path))
    assert len(splits.train) == 9
    with pytest.raises(DataError, match=r"Ebay_test\.txt"):
        _ = splits.test


def refused(name, root, **values):
    with pytest.raises(DataError) as error:
        everything(load_splits(settings(name, root, **values)).train)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["fashion-mnist", "cub", "cars", "sop"])
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, name):
    text = refused(name, tmp_path)
    assert str(tmp_path) in text
    assert "--data-root" in text
    assert any(word in text for word in ("fetch", "unpack", "put"))


@pytest.mark.parametrize("name", MAKERS)
def test_a_listed_image_that_is_missing_is_named(tmp_path, name):
    MAKERS[name](tmp_path)
    gone = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() == ".jpg")[0]
    gone.unlink()
    assert str(gone) in refused(name, tmp_path)


@pytest.mark.parametrize("name", MAKERS)
def test_a_corrupt_image_is_named(tmp_path, name):
    MAKERS[name](tmp_path)
    broken = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() == ".jpg")[0]
    broken.write_bytes(broken.read_bytes()[:200])
    assert str(broken) in refused(name, tmp_path)


def test_a_malformed_line_is_named_with_its_number(tmp_path):
    make_cub(tmp_path)
    path = tmp_path / "CUB_200_2011" / "images.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "only-one-field", *lines[4:]]))
    assert "line 4 is 'only-one-field'" in refused("cub", tmp_path)
    make_sop(tmp_path)
    listing = tmp_path / "Stanford_Online_Products" / "Ebay_train.txt"
    listing.write_text(listing.read_text() + "7 x 1 a.jpg\n")
    assert "line 11 is '7 x 1 a.jpg'" in refused("sop", tmp_path)


def test_lists_of_cub_that_do_not_match_are_refused(tmp_path):
    make_cub(tmp_path)
    path = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    assert "48 images and 47 classes" in refused("cub", tmp_path)


def test_annotations_that_are_not_those_of_cars_are_refused(tmp_path):
    make_cars(tmp_path)
    (tmp_path / "CARS_196" / "cars_annos.mat").write_bytes(b"not a matlab file" * 20)
    assert "is not the annotation file" in refused("cars", tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "not IDX"])
def test_damaged_idx_files_are_named(tmp_path, damage):
    make_fashion_mnist(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    damaged = {
        "truncated": content[: len(content) // 2],
        "not gzip": b"hello" * 100,
        "not IDX": gzip.compress(b"hello" * 100),
    }
    path.write_bytes(damaged[damage])
    text = refused("fashion-mnist", tmp_path)
    assert "is damaged" in text
    assert "train-images-idx3-ubyte" in text


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    make_fashion_mnist(tmp_path)
    raw = tmp_path / "FashionMNIST" / "raw"
    shutil.copy(raw / "t10k-labels-idx1-ubyte.gz", raw / "train-labels-idx1-ubyte.gz")
    assert "60 images and 30 labels" in refused("fashion-mnist", tmp_path)


def test_a_class_with_one_image_is_refused_by_name(tmp_path):
    make_sop(tmp_path)
    listing = tmp_path / "Stanford_Online_Products" / "Ebay_train.txt"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-2]))
    assert "1 classes with a single image, the first is 3" in refused("sop", tmp_path)


def test_a_set_of_one_class_is_refused(tmp_path):
    make_cub(tmp_path, classes=2)
    assert "has 1 class; two classes or more are needed" in refused("cub", tmp_path)


def test_a_wrong_stored_size_of_a_set_with_one_size_is_refused(tmp_path):
    assert "have 8 px, data.stored_size is 28" in refused("digits", tmp_path, stored_size=28, image_size=28)


def test_a_wrong_stored_size_is_refused_on_the_test_side_too(tmp_path):
    make_fashion_mnist(tmp_path)
    with pytest.raises(DataError, match=r"have 28 px, data\.stored_size is 64"):
        load_test(settings("fashion-mnist", tmp_path, stored_size=64, image_size=64))


def test_an_image_cannot_be_larger_than_what_is_stored(tmp_path):
    with pytest.raises(ValueError, match="image_size 224 is larger than stored_size 64"):
        settings("cub", tmp_path, stored_size=64, image_size=224)


def test_grey_and_transparent_files_become_three_channels(tmp_path):
    make_cub(tmp_path)
    files = sorted((tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"))
    Image.new("L", (20, 30), 77).save(files[0])
    Image.new("RGBA", (20, 30), (10, 20, 30, 128)).save(files[1], format="PNG")
    train = load_splits(settings("cub", tmp_path)).train
    grey, transparent = train.pixels(torch.tensor([0, 1]))
    assert (grey == 77).all()
    assert transparent.shape == (3, 32, 32)


def test_pixels_that_are_not_8_bit_are_refused_so_that_nan_cannot_get_in():
    from colotride.data.base import InMemoryImages

    with pytest.raises(DataError, match="give 8-bit ones"):
        InMemoryImages("mine", torch.full((2, 3, 4, 4), torch.nan), torch.tensor([0, 1]))
