import pytest
import torch

from colotride.data.settings import DataSettings
from colotride.data.splits import held_out_classes, held_out_images, load_splits
from colotride.errors import DataError
from tests.layouts import make_cub, make_fashion_mnist


def digits(**values):
    return DataSettings(
        **{
            "name": "digits",
            "stored_size": 8,
            "image_size": 8,
            "hold_out_validation": True,
            "validation_fraction": 1 / 3,
        }
        | values
    )


def test_digits_hold_out_the_classes_4_and_5():
    splits = load_splits(digits())
    assert splits.train.labels.unique().tolist() == [0, 1, 2, 3]
    assert splits.validation.labels.unique().tolist() == [4, 5]
    assert len(splits.train) + len(splits.validation) == 1083


def test_without_a_hold_out_everything_is_trained_on():
    splits = load_splits(digits(hold_out_validation=False))
    assert splits.validation is None
    assert len(splits.train) == 1083


def test_the_parts_hold_the_images_of_their_labels():
    splits, whole = load_splits(digits()), load_splits(digits(hold_out_validation=False)).train
    place = (whole.labels == 4).nonzero()[3]
    first = (splits.validation.labels == 4).nonzero()[3]
    assert torch.equal(splits.validation.pixels(first), whole.pixels(place))


def test_zero_shot_sets_hold_out_the_last_classes_and_at_least_two():
    labels = torch.tensor([3, 1, 9, 9, 1, 3, 5, 5, 7, 7])
    assert labels[held_out_classes(labels, 0.4)].unique().tolist() == [7, 9]
    assert labels[held_out_classes(labels, 0.01)].unique().tolist() == [7, 9]


def test_two_training_classes_must_remain(tmp_path):
    make_cub(tmp_path, classes=6)
    settings = DataSettings(
        name="cub", root=tmp_path, stored_size=16, image_size=16, hold_out_validation=True, validation_fraction=0.5
    )
    with pytest.raises(DataError, match="has 1 class"):
        load_splits(settings)


def test_closed_sets_hold_out_the_same_share_of_every_class_and_no_image_twice():
    labels = torch.arange(400) % 4
    held_out = held_out_images(labels, 0.1)
    assert torch.bincount(labels[held_out]).tolist() == [10, 10, 10, 10]
    assert torch.equal(held_out, held_out_images(labels, 0.1)), "all runs of a search validate on the same images"


def test_closed_sets_hold_out_a_query_and_its_match_at_least():
    labels = torch.arange(40) % 10
    assert torch.bincount(labels[held_out_images(labels, 0.01)]).tolist() == [2] * 10


def test_fashion_mnist_validates_on_its_training_side(tmp_path):
    make_fashion_mnist(tmp_path, images=100)
    settings = DataSettings(
        name="fashion-mnist",
        root=tmp_path,
        stored_size=28,
        image_size=28,
        hold_out_validation=True,
        validation_fraction=0.2,
    )
    splits = load_splits(settings)
    assert (len(splits.train), len(splits.validation)) == (80, 20)
    both = torch.cat([part.pixels(torch.arange(len(part))) for part in (splits.train, splits.validation)])
    assert len(both.unique(dim=0)) == 100
