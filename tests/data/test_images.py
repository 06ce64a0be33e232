"""Anybody's images as image sets, and picture files as a model sees them."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset
from torchvision.datasets import FakeData

from colotride.data.files import decode, load_pictures
from colotride.data.images import as_image_set
from colotride.errors import DataError

PIXELS = torch.randint(0, 256, (6, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = [0, 0, 1, 1, 2, 2]

FORMS = {
    "tensor of bytes": (PIXELS, LABELS),
    "tensor of floats": (PIXELS.double() / 255, torch.tensor(LABELS)),
    "array of bytes": (PIXELS.numpy(), np.array(LABELS, np.uint8)),
    "array with channels last": (PIXELS.numpy().transpose(0, 2, 3, 1), LABELS),
    "array of floats with channels last": (PIXELS.numpy().transpose(0, 2, 3, 1) / np.float32(255), LABELS),
    "torch data set": (TensorDataset(PIXELS.float() / 255, torch.tensor(LABELS)), None),
    "pairs of Pillow images": (
        [(Image.fromarray(image.permute(1, 2, 0).numpy()), label) for image, label in zip(PIXELS, LABELS, strict=True)],
        None,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_pixels_and_labels(form):
    images = as_image_set(*FORMS[form])
    assert torch.equal(images.pixels(torch.arange(6)), PIXELS)
    assert images.labels.tolist() == LABELS


def test_grey_images_need_no_channel_and_an_image_set_stays_itself():
    grey = as_image_set(PIXELS[:, 0], LABELS)
    assert torch.equal(grey.pixels(torch.tensor([1])), PIXELS[1:2, :1])
    assert as_image_set(grey) is grey


def test_a_data_set_of_torchvision_is_read_as_pillow_gives_it():
    data = FakeData(4, (3, 8, 8), num_classes=2)
    images = as_image_set(data)
    assert torch.equal(images.pixels(torch.tensor([2]))[0], torch.from_numpy(np.array(data[2][0])).permute(2, 0, 1))


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (PIXELS, None, "come without labels"),
        (PIXELS, LABELS[:-1], "6 images and labels of shape"),
        (PIXELS, [0.5] * 6, "give integers"),
        (PIXELS, list("aabbcc"), "are not numbers"),
        (PIXELS.float(), LABELS, r"floating-point pixels must lie in \[0, 1\]"),
        (PIXELS.float() * torch.nan, LABELS, "pixels from nan to nan"),
        (PIXELS.long(), LABELS, "type torch.int64"),
        (PIXELS[:, :2], LABELS, r"have the shape \(6, 2, 5, 5\)"),
        (PIXELS[:0], [], r"have the shape \(0, 3, 5, 5\)"),
        (np.array(["a", "b"]), [0, 1], "of type <U1"),
        (TensorDataset(PIXELS), None, "item 0 of images is not a pair"),
        (TensorDataset(PIXELS, torch.tensor(LABELS)), LABELS, "labels apart"),
        ([(PIXELS[0], 0), (PIXELS[0, :, :4], 0)], None, "item 1 of images has the shape"),
        (Endless(), None, "cannot be counted|counted and indexed"),
        (7, None, "type int have no items"),
    ],
)
def test_other_forms_are_one_line(images, labels, complaint):
    with pytest.raises(DataError, match=complaint) as error:
        as_image_set(images, labels)
    assert "\n" not in str(error.value)


def test_pictures_are_resized_cropped_and_scaled_as_in_an_evaluation(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    expected = np.asarray(picture.resize((12, 12), Image.Resampling.BILINEAR))[2:10, 2:10].transpose(2, 0, 1)
    for paths in ([tmp_path / "a.png"], [str(tmp_path / "a.png")]):
        assert torch.equal(load_pictures(paths, 12, 8)[0], torch.from_numpy(expected.copy()).float() / 255)
    with pytest.raises(DataError, match="no crop of 13 px"):
        load_pictures([tmp_path / "a.png"], 12, 13)
    with pytest.raises(DataError, match="no pictures"):
        load_pictures([], 12, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_orientation(tmp_path, orientation):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    lying = upright.transpose(stored_as[orientation]) if orientation in stored_as else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "a.png", 8), np.asarray(upright).transpose(2, 0, 1))


def test_deep_damaged_and_odd_files_are_one_line_with_their_name(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (50, 50)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe.jpg")
    complaints = {
        "deep.png": "more than 8 bits per channel",
        "text.jpg": "cannot be decoded",
        "cut.png": "cannot be decoded",
        "pipe.jpg": "not a regular file",
        "absent.jpg": "cannot be decoded",
    }
    for name, complaint in complaints.items():
        with pytest.raises(DataError, match=complaint) as error:
            load_pictures([tmp_path / name], 4, 4)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)
