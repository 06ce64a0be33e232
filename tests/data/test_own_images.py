"""One's own images: a folder of class folders, or a table."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet

from colotride.data.base import class_name
from colotride.data.settings import DataSettings
from colotride.data.splits import load_splits
from colotride.errors import DataError
from tests.layouts import picture


def settings(name, root, **values):
    return DataSettings(name=name, root=root, stored_size=16, image_size=16, **values)


def fill(folder, classes, images=3):
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(images):
            picture(number, 20, random).save(folder / name / f"{index}.png")
    return folder


def table(path, rows):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write = csv.write_csv if path.suffix == ".csv" else parquet.write_table
    write(pa.table(columns), path)
    return path


def test_folders_of_both_sides_share_their_class_numbers(tmp_path):
    fill(tmp_path / "train", ["cat", "dog"])
    fill(tmp_path / "test", ["ant", "dog"])
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    splits = load_splits(settings("folder", tmp_path))
    assert splits.train.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert splits.test.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert splits.train.pixels(torch.tensor([0, 5])).shape == (2, 3, 16, 16)
    assert [class_name(splits.test, label) for label in range(4)] == ["ant", "cat", "dog", "class 3"]


@pytest.mark.parametrize(("test", "classes"), [(["x", "y"], 2), (["a", "b"], 4)])
def test_whole_classes_are_held_out_where_the_test_classes_are_others(tmp_path, test, classes):
    fill(tmp_path / "train", ["a", "b", "c", "d"], images=6)
    fill(tmp_path / "test", test)
    held = load_splits(settings("folder", tmp_path, hold_out_validation=True, validation_fraction=0.5))
    assert len(held.train.labels.unique()) == classes


def test_a_folder_without_sides_is_there_to_be_evaluated(tmp_path):
    from colotride.data.folder import folder

    fill(tmp_path, ["a", "b"])
    source = folder(tmp_path, 16)
    assert source.test().labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(DataError, match="folder/train is not at"):
        source.train()


def test_an_empty_folder_is_one_line(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has no images"):
        load_splits(settings("folder", tmp_path))
    with pytest.raises(DataError, match="folder is not at"):
        load_splits(settings("folder", tmp_path / "nowhere"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_lists_images_with_labels_and_sides(tmp_path, suffix):
    fill(tmp_path / "images", ["a", "b", "c"])
    rows = [
        {"path": f"images/{name}/{index}.png", "label": name, "split": "test" if name == "a" else "train"}
        for name in "cba"
        for index in range(3)
    ]
    splits = load_splits(settings("manifest", table(tmp_path / f"list.{suffix}", rows)))
    assert splits.train.labels.tolist() == [2, 2, 2, 1, 1, 1]
    assert splits.test.labels.tolist() == [0, 0, 0]


def test_labels_may_be_numbers_and_sides_may_be_left_out(tmp_path):
    from colotride.data.manifest import manifest

    fill(tmp_path, ["a", "b"])
    rows = [{"path": f"{name}/0.png", "label": label} for name, label in (("a", 70), ("b", 9))]
    source = manifest(table(tmp_path / "list.csv", rows), 16)
    assert source.test().labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="no image of split train"):
        source.train()


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"path": "a/0.png", "class": "a"}], "no column label"),
        ([{"path": "a/0.png", "label": "a", "split": "valid"}], "split 'valid'"),
        ([{"path": "a/9.png", "label": "a", "split": "train"}], "not a file that is there"),
        ([{"path": None, "label": "a"}, {"path": "a/0.png", "label": "a"}], "rows without path"),
    ],
)
def test_tables_that_lie_are_one_line(tmp_path, rows, complaint):
    fill(tmp_path, ["a"])
    with pytest.raises(DataError, match=complaint) as error:
        load_splits(settings("manifest", table(tmp_path / "list.parquet", rows)))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    (tmp_path / "list.parquet").write_text("nothing of the kind")
    with pytest.raises(DataError, match="cannot be read") as error:
        load_splits(settings("manifest", tmp_path / "list.parquet"))
    assert "\n" not in str(error.value)
