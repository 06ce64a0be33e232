"""Images decoded once into a file: the same pixels, shared, and made again only when they must be."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from colotride.data import store as store_module
from colotride.data.files import FileImages
from colotride.data.settings import DataSettings
from colotride.data.splits import load_splits
from colotride.data.store import StoredImages, stored, verify_store
from colotride.data.store_file import CHUNK
from colotride.data.store_worker import Job, Worker
from colotride.errors import DataError
from tests.commands import environment
from tests.layouts import make_cub, picture

SIZE = 16


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.delenv("COLOTRIDE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def encoded(label, side=24):
    """A JPEG of 4 kB whatever it shows: readers ignore what follows the image."""
    from io import BytesIO

    file = BytesIO()
    picture(label, side, np.random.default_rng(label)).save(file, format="JPEG")
    return file.getvalue().ljust(4096, b"\0")


def make_files(root, count, side=24, label=0):
    folder = root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    content = encoded(label, side)
    for index in range(count):
        (folder / f"{index:05d}.jpg").write_bytes(content)
    return files_in(root)


def files_in(root, size=SIZE):
    paths = sorted((root / "images").iterdir())
    return FileImages("toy/train", paths, [index % 3 for index in range(len(paths))], size)


def replace_unseen(path, content):
    """Other pixels under the same name, size and date: whoever does not decode again cannot tell."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def everything(images):
    return images.pixels(torch.arange(len(images)))


def by_pillow(path, size=SIZE):
    """What `FileImages` has given since before there were stores, written out."""
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_pixels_are_those_of_the_files_one_for_one(tmp_path):
    make_cub(tmp_path)
    settings = DataSettings(name="cub", root=tmp_path, stored_size=32, image_size=32)
    train = load_splits(settings).train
    assert isinstance(train, StoredImages)
    listed = sorted((tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"))[: len(train)]
    expected = torch.stack([by_pillow(path, 32) for path in listed])
    assert torch.equal(everything(train), expected)
    files = FileImages("cub/train", listed, train.labels.tolist(), 32)
    some = torch.tensor([7, 0, 7, 23])
    assert torch.equal(train.pixels(some), files.pixels(some))
    assert everything(train).is_contiguous()


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_chunks_of_all_lengths_keep_the_order(tmp_path, count):
    files = make_files(tmp_path, count)
    for index in (0, count // 2, count - 1):
        files.paths[index].write_bytes(encoded(index + 1))
    assert torch.equal(everything(stored(files, tmp_path)), everything(files))
    assert stored(files, tmp_path).labels.tolist() == files.labels.tolist()


def test_a_store_that_is_there_is_not_made_again(tmp_path):
    files = make_files(tmp_path, 5)
    first = stored(files, tmp_path)
    place, before = first.path.stat().st_ino, everything(first)
    replace_unseen(files.paths[2], encoded(1))
    again = stored(files_in(tmp_path), tmp_path)
    assert again.path.stat().st_ino == place
    assert torch.equal(everything(again), before)
    assert sorted(path.suffix for path in first.path.parent.iterdir()) == [".arrow", ".lock"], "nothing else stays"


@pytest.mark.parametrize("change", ["content", "date", "label", "one more"])
def test_other_files_make_another_store(tmp_path, capsys, change):
    files = make_files(tmp_path, 5)
    stored(files, tmp_path)
    assert capsys.readouterr().err == ""
    labels = files.labels.tolist()
    if change == "content":
        files.paths[2].write_bytes(encoded(1)[:-1])
    elif change == "date":
        os.utime(files.paths[2], (0, 0))
    elif change == "label":
        labels[0] += 1
    else:
        files = make_files(tmp_path, 6)
        labels = files.labels.tolist()
    changed = FileImages("toy/train", files.paths, labels, SIZE)
    images = stored(changed, tmp_path)
    assert torch.equal(everything(images), everything(changed))
    assert images.labels.tolist() == labels
    assert capsys.readouterr().err == f"{images.path} was made from other image files; it was made again\n"


def test_a_data_root_that_moved_keeps_its_stores(tmp_path, capsys):
    made = stored(make_files(tmp_path / "old", 5), tmp_path / "old")
    place = made.path.stat().st_ino
    (tmp_path / "old").rename(tmp_path / "new")
    images = stored(files_in(tmp_path / "new"), tmp_path / "new")
    assert images.path.stat().st_ino == place
    assert capsys.readouterr().err == ""


def arrow_of_somebody_else(path):
    table = pa.table({"pixels": [b"a"], "label": [1]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its start": lambda path: path.write_bytes(path.read_bytes()[64:]),
    "of text": lambda path: path.write_text("hello" * 1000),
    "somebody else's": arrow_of_somebody_else,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_whole_store_is_made_again_with_one_line(tmp_path, capsys, damage):
    files = make_files(tmp_path, 5)
    path = stored(files, tmp_path).path
    DAMAGE[damage](path)
    assert torch.equal(everything(stored(files, tmp_path)), everything(files))
    said = capsys.readouterr().err
    assert said.startswith(f"{path} is truncated or not an image store (")
    assert said.endswith("it was made again\n")
    assert said.count("\n") == 1


def test_a_store_of_another_set_in_its_place_is_not_believed(tmp_path, capsys):
    files = make_files(tmp_path, 5)
    path = stored(files, tmp_path).path
    other = FileImages("other/train", files.paths, files.labels.tolist(), 2 * SIZE)
    stored(other, tmp_path).path.replace(path)
    assert stored(files, tmp_path).pixels(torch.tensor([0])).shape == (1, 3, SIZE, SIZE)
    assert f"{path} holds other/train at 32 px" in capsys.readouterr().err


def test_another_recipe_is_another_store(tmp_path, monkeypatch):
    files = make_files(tmp_path, 5)
    here = stored(files, tmp_path).path
    monkeypatch.setattr(store_module, "RULE", "RGB, resized to a square, bicubic")
    there = stored(files, tmp_path).path
    there.replace(here)
    monkeypatch.undo()
    assert there != here
    assert torch.equal(everything(stored(files, tmp_path)), everything(files))
    assert store_module.read_store(here).header.rule.endswith("bilinear")


def test_a_changed_byte_is_found_by_the_checksum(tmp_path):
    path = stored(make_files(tmp_path, 5), tmp_path).path
    assert verify_store(path) is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "has the checksum" in verify_store(path)


def test_pixels_are_mapped_not_copied_and_pickles_carry_the_path_alone(tmp_path):
    images = stored(make_files(tmp_path, 40), tmp_path)
    first = images._content.rows.ctypes.data
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(images.path.name)
    ]
    assert any(start <= first and first + images._content.rows.nbytes <= end for start, end in ranges)
    packed = pickle.dumps(images)
    assert len(packed) < 500
    assert torch.equal(everything(pickle.loads(packed)), everything(images))
    images.pixels(torch.tensor([3])).zero_()
    assert everything(images)[3].any(), "a batch is the caller's own"


# Interruptions and company


BUILDER = """
import sys
from pathlib import Path
from colotride.data.files import FileImages
from colotride.data.store import stored
root = Path(sys.argv[1])
paths = sorted((root / "images").iterdir())
print(stored(FileImages("toy/train", paths, [index % 3 for index in range(len(paths))], 16), root).path.stat().st_ino)
"""
"""A script without `if __name__ == "__main__"`: decoding processes must not run it again."""


def start_building(root):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(root)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_stopped(tmp_path):
    # Images of 400 px take long enough to be interrupted in the middle.
    files = make_files(tmp_path, 8 * CHUNK, side=400)
    old = by_pillow(files.paths[0])
    building = start_building(tmp_path)
    folder = tmp_path / ".colotride"

    def finished():
        return [json.loads(line)[0] for journal in folder.glob("*.journal") for line in whole_lines(journal)]

    wait_for(lambda: len(finished()) >= 2)
    children = Path(f"/proc/{building.pid}/task/{building.pid}/children").read_text().split()
    building.send_signal(signal.SIGKILL)
    building.communicate()
    kept = finished()
    assert 2 <= len(kept) < 8, "it was to be interrupted in the middle"
    assert not list(folder.glob("*.arrow"))
    wait_for(lambda: not any(map(runs, children)))
    for path in files.paths:
        replace_unseen(path, encoded(1).ljust(path.stat().st_size, b"\0"))
    new = by_pillow(files.paths[0])
    assert not torch.equal(old, new)
    done = start_building(tmp_path)
    assert done.wait(120) == 0, done.stderr.read()
    done.communicate()
    pixels = everything(stored(files_in(tmp_path), tmp_path))
    for chunk in range(8):
        expected = old if chunk in kept else new
        assert (pixels[chunk * CHUNK : (chunk + 1) * CHUNK] == expected).all(), chunk


def whole_lines(journal):
    return journal.read_text().split("\n")[1:-1]


@pytest.mark.slow
def test_two_builders_at_once_make_one_store(tmp_path):
    files = make_files(tmp_path, 4 * CHUNK, side=200)
    both = [start_building(tmp_path) for _ in range(2)]
    places = [builder.communicate(timeout=120) for builder in both]
    assert [builder.returncode for builder in both] == [0, 0], places
    assert places[0][0] == places[1][0], "the second one took what the first one made"
    assert verify_store(stored(files, tmp_path).path) is None


def test_a_build_that_fails_keeps_what_is_done_and_names_the_image(tmp_path):
    files = make_files(tmp_path, 4 * CHUNK)
    broken = files.paths[-1]
    before = broken.stat()
    sound = broken.read_bytes()
    replace_unseen(broken, b"no image".ljust(len(sound)))
    with pytest.raises(DataError, match=r"cannot be decoded .* fetch toy/train again") as error:
        stored(files, tmp_path)
    assert str(error.value).startswith(f"image {broken} ")
    journal = next((tmp_path / ".colotride").glob("*.journal"))
    assert whole_lines(journal), "chunks before the broken one are kept"
    broken.write_bytes(sound)
    os.utime(broken, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torch.equal(everything(stored(files, tmp_path)), everything(files))


@pytest.mark.parametrize("left", ["a torn line", "rubbish", "another store's"])
def test_a_journal_that_cannot_be_trusted_is_begun_anew(tmp_path, left):
    files = make_files(tmp_path, 5)
    path = store_module.store_folders(tmp_path)[0] / store_module.file_name("toy/train", SIZE)
    path.parent.mkdir()
    path.with_suffix(".part").write_bytes(b"\1" * (5 * 3 * SIZE * SIZE))
    content = {"a torn line": b"{}\n[0, ", "rubbish": b"\xff\n\xff\n", "another store's": b'{}\n[0, "abc"]\n'}
    path.with_suffix(".journal").write_bytes(content[left])
    assert torch.equal(everything(stored(files, tmp_path)), everything(files))


def test_a_killed_decoding_process_is_one_line(tmp_path):
    job = Job(str(tmp_path / "part"), 0, ["a.jpg"], SIZE, "toy/train")
    with Worker() as worker:
        worker._process.kill()
        with pytest.raises(DataError, match=r"decodes toy/train was killed .* run this again to go on"):
            worker(job)


def test_a_disk_that_is_too_small_is_told_before_anything_is_decoded(tmp_path):
    files = files_in(make_files(tmp_path, 2) and tmp_path, size=2_000_000)
    with pytest.raises(DataError, match=r"needs 48000\.0 GB while it is made"):
        stored(files, tmp_path)


def test_a_root_that_cannot_be_written_leaves_the_store_to_the_cache(tmp_path, monkeypatch):
    files = make_files(tmp_path / "data", 5)
    (tmp_path / "data" / ".colotride").write_text("in the way")
    images = stored(files, tmp_path / "data")
    assert images.path.is_relative_to(tmp_path / "home" / ".cache" / "colotride")
    monkeypatch.setenv("COLOTRIDE_CACHE", str(tmp_path / "chosen"))
    assert stored(files, tmp_path / "data").path.is_relative_to(tmp_path / "chosen")
    monkeypatch.setenv("COLOTRIDE_CACHE", str(tmp_path / "data" / ".colotride" / "x"))
    with pytest.raises(DataError, match="COLOTRIDE_CACHE"):
        stored(files, tmp_path / "data")


def test_a_store_beside_one_s_own_class_folders_is_no_class(tmp_path):
    from colotride.data.folder import folder

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(2):
            picture(1, 20, np.random.default_rng(index)).save(tmp_path / label / f"{index}.png")
    first = stored(folder(tmp_path, SIZE).test(), tmp_path)
    (tmp_path / ".colotride" / "stray.png").write_bytes(b"")
    again = folder(tmp_path, SIZE).test()
    assert again.labels.tolist() == first.labels.tolist() == [0, 0, 1, 1]
