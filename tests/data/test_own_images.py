"""One's own images: a folder of class folders, or a table."""

import os

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


TABLES = {
    "integer paths": (b"path,label\n1,a\n2,b\n", "column path .* type int64; give text"),
    "two columns of one name": (b"path,label,label\na/0.png,a,b\n", "has 2 columns label; keep one"),
    "Latin-1 text": ("path,label\nb\u00e4r.png,a\n".encode("latin-1"), "column path .* is not UTF-8 text"),
    "Latin-1 names of columns": (
        "path,label,gr\u00f6\u00dfe\na/0.png,a,1\n".encode("latin-1"),
        "cannot be read|no image of",
    ),
    "dates as labels": (b"path,label\na/0.png,2020-01-01\n", "column label .* give text or numbers"),
    "no rows": (b"path,label\n", "lists no image of split train"),
    "nothing": (b"", "cannot be read"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_other_kinds_are_one_line(tmp_path, kind):
    fill(tmp_path, ["a"])
    content, complaint = TABLES[kind]
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        load_splits(settings("manifest", tmp_path / "list.csv"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("paths", [[b"a/0.png"], [["a/0.png"]]])
def test_paths_that_are_bytes_or_lists_are_one_line(tmp_path, paths):
    fill(tmp_path, ["a"])
    parquet.write_table(pa.table({"path": paths, "label": ["a"]}), tmp_path / "list.parquet")
    with pytest.raises(DataError, match="column path of manifest"):
        load_splits(settings("manifest", tmp_path / "list.parquet"))


def test_an_image_in_both_splits_is_refused_by_name(tmp_path):
    fill(tmp_path, ["a", "b"])
    rows = [{"path": f"{name}/{i}.png", "label": name, "split": "train"} for name in "ab" for i in range(3)]
    rows.append({"path": "b/../a/1.png", "label": "a", "split": "test"})
    with pytest.raises(DataError, match=r"a/1\.png in both splits, train and test"):
        load_splits(settings("manifest", table(tmp_path / "list.csv", rows)))


def test_repeated_rows_and_a_file_in_two_classes_are_named_and_kept(tmp_path, capsys):
    fill(tmp_path, ["a", "b"])
    rows = [{"path": f"{name}/{i}.png", "label": name, "split": "train"} for name in "ab" for i in range(3)]
    listed = table(tmp_path / "list.csv", [*rows, rows[0], {**rows[1], "label": "b"}])
    assert len(load_splits(settings("manifest", listed)).train) == 8
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"warning: manifest {listed} has {tmp_path}/a/1.png in more than one class of split train",
        f"warning: manifest {listed} lists {tmp_path}/a/0.png more than once in split train",
    ]


@pytest.mark.parametrize("name", ["folder", "manifest"])
def test_a_named_pipe_is_refused_and_never_opened(tmp_path, name):
    fill(tmp_path / "train", ["a", "b"])
    os.mkfifo(tmp_path / "train" / "a" / "pipe.png")
    root = tmp_path
    if name == "manifest":
        root = table(tmp_path / "list.csv", [{"path": "train/a/pipe.png", "label": "a", "split": "train"}])
    with pytest.raises(DataError, match=r"pipe\.png, which is not a (regular )?file"):
        load_splits(settings(name, root))


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    (tmp_path / "list.parquet").write_text("nothing of the kind")
    with pytest.raises(DataError, match="cannot be read") as error:
        load_splits(settings("manifest", tmp_path / "list.parquet"))
    assert "\n" not in str(error.value)
