"""Images decoded once into a file: the same pixels, shared, and made again only when they must be."""

import errno
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

from colotride.data import cache as cache_module
from colotride.data.cache import CachedImages, cached_images, verify_cache
from colotride.data.cache_file import CHUNK, CacheFile
from colotride.data.files import FileImages
from colotride.data.settings import DataSettings
from colotride.data.splits import load_splits
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
    assert isinstance(train, CachedImages)
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
    assert torch.equal(everything(cached_images(files, tmp_path)), everything(files))
    assert cached_images(files, tmp_path).labels.tolist() == files.labels.tolist()


def test_a_store_that_is_there_is_not_made_again(tmp_path):
    files = make_files(tmp_path, 5)
    first = cached_images(files, tmp_path)
    place, before = first.path.stat().st_ino, everything(first)
    replace_unseen(files.paths[2], encoded(1))
    again = cached_images(files_in(tmp_path), tmp_path)
    assert again.path.stat().st_ino == place
    assert torch.equal(everything(again), before)
    assert sorted(path.suffix for path in first.path.parent.iterdir()) == [".arrow", ".lock"], "nothing else stays"


@pytest.mark.parametrize("change", ["content", "date", "label", "one more"])
def test_other_files_make_another_store(tmp_path, capsys, change):
    files = make_files(tmp_path, 5)
    cached_images(files, tmp_path)
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
    images = cached_images(changed, tmp_path)
    assert torch.equal(everything(images), everything(changed))
    assert images.labels.tolist() == labels
    assert capsys.readouterr().err == f"{images.path} was made from other image files; it was made again\n"


def test_a_data_root_that_moved_keeps_its_stores(tmp_path, capsys):
    made = cached_images(make_files(tmp_path / "old", 5), tmp_path / "old")
    place = made.path.stat().st_ino
    (tmp_path / "old").rename(tmp_path / "new")
    images = cached_images(files_in(tmp_path / "new"), tmp_path / "new")
    assert images.path.stat().st_ino == place
    assert capsys.readouterr().err == ""


def arrow_of_somebody_else(path):
    table = pa.table({"pixels": [b"a"], "label": [1]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def arrow_of_the_former_format(path):
    """An IPC file, as ColoTride wrote it up to version 0.1, in place of the stream."""
    table = pa.table({"pixels": [b"a"], "label": [1]}).replace_schema_metadata({b"colotride": b'{"format": 1}'})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def without_end(path):
    """A stream that ends properly, but after its schema."""
    schema = pa.ipc.open_stream(path.read_bytes()).schema
    path.write_bytes(schema.serialize().to_pybytes() + b"\xff\xff\xff\xff\0\0\0\0")


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its start": lambda path: path.write_bytes(path.read_bytes()[64:]),
    "of text": lambda path: path.write_text("hello" * 1000),
    "somebody else's": arrow_of_somebody_else,
    "of the former format": arrow_of_the_former_format,
    "without its last chunk": without_end,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_whole_store_is_made_again_with_one_line(tmp_path, capsys, damage):
    files = make_files(tmp_path, 5)
    path = cached_images(files, tmp_path).path
    DAMAGE[damage](path)
    assert torch.equal(everything(cached_images(files, tmp_path)), everything(files))
    said = capsys.readouterr().err
    assert said.startswith(f"{path} is truncated")
    assert said.endswith("it was made again\n")
    assert said.count("\n") == 1


def test_a_store_of_another_set_in_its_place_is_not_believed(tmp_path, capsys):
    files = make_files(tmp_path, 5)
    path = cached_images(files, tmp_path).path
    other = FileImages("other/train", files.paths, files.labels.tolist(), 2 * SIZE)
    cached_images(other, tmp_path).path.replace(path)
    assert cached_images(files, tmp_path).pixels(torch.tensor([0])).shape == (1, 3, SIZE, SIZE)
    assert f"{path} holds other/train at 32 px" in capsys.readouterr().err


def test_another_recipe_is_another_store(tmp_path, monkeypatch):
    files = make_files(tmp_path, 5)
    here = cached_images(files, tmp_path).path
    monkeypatch.setattr(cache_module, "RULE", "RGB, resized to a square, bicubic")
    there = cached_images(files, tmp_path).path
    there.replace(here)
    monkeypatch.undo()
    assert there != here
    assert torch.equal(everything(cached_images(files, tmp_path)), everything(files))
    assert CacheFile(here).header.rule.endswith("bilinear")


def test_a_changed_byte_is_found_by_the_checksum(tmp_path):
    path = cached_images(make_files(tmp_path, 5), tmp_path).path
    assert verify_cache(path) is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "has another checksum at image 2" in verify_cache(path)


def test_pixels_are_mapped_not_copied_and_pickles_carry_the_path_alone(tmp_path):
    images = cached_images(make_files(tmp_path, 40), tmp_path)
    rows = images._content._chunks[0][0]
    first = rows.ctypes.data
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(images.path.name)
    ]
    assert any(start <= first and first + rows.nbytes <= end for start, end in ranges)
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
from colotride.data.cache import cached_images
root = Path(sys.argv[1])
paths = sorted((root / "images").iterdir())
print(cached_images(FileImages("toy/train", paths, [index % 3 for index in range(len(paths))], 16), root).path.stat().st_ino)
"""
"""A script without `if __name__ == "__main__"`: decoding must not run it again."""


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
        return [number for part in folder.glob("*.part") for number in whole_chunks(part)]

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
    pixels = everything(cached_images(files_in(tmp_path), tmp_path))
    for chunk in range(8):
        expected = old if chunk in kept else new
        assert (pixels[chunk * CHUNK : (chunk + 1) * CHUNK] == expected).all(), chunk


def whole_chunks(part):
    """Numbers of the chunks that are whole in the file of an interrupted build."""
    count = 0
    try:
        with pa.memory_map(str(part)) as source:
            for _ in pa.ipc.open_stream(source):
                count += 1
    except (pa.ArrowInvalid, OSError):
        pass
    return range(count)


@pytest.mark.slow
def test_two_builders_at_once_make_one_store(tmp_path):
    files = make_files(tmp_path, 4 * CHUNK, side=200)
    both = [start_building(tmp_path) for _ in range(2)]
    places = [builder.communicate(timeout=120) for builder in both]
    assert [builder.returncode for builder in both] == [0, 0], places
    assert places[0][0] == places[1][0], "the second one took what the first one made"
    assert verify_cache(cached_images(files, tmp_path).path) is None


def test_a_build_that_fails_keeps_what_is_done_and_names_the_image(tmp_path):
    files = make_files(tmp_path, 4 * CHUNK)
    broken = files.paths[-1]
    before = broken.stat()
    sound = broken.read_bytes()
    replace_unseen(broken, b"no image".ljust(len(sound)))
    with pytest.raises(DataError, match=r"cannot be decoded .* replace or remove it") as error:
        cached_images(files, tmp_path)
    assert str(error.value).startswith(f"image {broken} ")
    part = next((tmp_path / ".colotride").glob("*.part"))
    assert len(whole_chunks(part)) == 3, "chunks before the broken one are kept"
    broken.write_bytes(sound)
    os.utime(broken, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torch.equal(everything(cached_images(files, tmp_path)), everything(files))


def interrupted(tmp_path, files):
    """A build of two whole chunks and a third one that cannot be decoded; the path of what it has left."""
    last = files.paths[-1]
    before, sound = last.stat(), last.read_bytes()
    replace_unseen(last, b"no image".ljust(len(sound)))
    with pytest.raises(DataError, match="cannot be decoded"):
        cached_images(files, tmp_path)
    last.write_bytes(sound)
    os.utime(last, ns=(before.st_atime_ns, before.st_mtime_ns))
    (part,) = (tmp_path / ".colotride").glob("*.part")
    return part


LEFT = {
    "whole": (2, lambda part: None),
    "a torn tail": (1, lambda part: os.truncate(part, part.stat().st_size - 1)),
    "garbage behind it": (2, lambda part: part.write_bytes(part.read_bytes() + b"garbage" * 100)),
    "garbage": (0, lambda part: part.write_bytes(b"\xff" * 5000)),
    "a flipped bit": (1, lambda part: flip_bit(part, part.stat().st_size - 10_000)),
    "another set's": (0, lambda part: part.write_bytes(part.read_bytes().replace(b"toy/train", b"toy/tests"))),
}


def flip_bit(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ 1]))


@pytest.mark.parametrize("left", LEFT)
def test_an_interrupted_build_keeps_what_is_intact_and_nothing_else(tmp_path, left):
    files = make_files(tmp_path, 2 * CHUNK + 1)
    kept, damage = LEFT[left]
    part = interrupted(tmp_path, files)
    assert len(whole_chunks(part)) == 2
    damage(part)
    old = everything(files)[0]
    for path in files.paths:
        replace_unseen(path, encoded(1))
    new = everything(files)[0]
    pixels = everything(cached_images(files_in(tmp_path), tmp_path))
    assert not torch.equal(old, new)
    assert (pixels[: kept * CHUNK] == old).all()
    assert (pixels[kept * CHUNK :] == new).all()
    assert not part.exists()


def test_a_flipped_bit_is_found_when_the_image_is_first_used(tmp_path):
    files = make_files(tmp_path, CHUNK + 5)
    path = cached_images(files, tmp_path).path
    content = path.read_bytes()
    # The last image of the first chunk: its pixels end where the classes of the chunk begin.
    chunk = CacheFile(path)._chunks[0][0]
    flip_bit(path, content.index(chunk.tobytes()) + chunk.nbytes - 1)
    images = cached_images(files, tmp_path)
    assert isinstance(images, CachedImages), "opening reads no pixels"
    assert torch.equal(images.pixels(torch.tensor([0, CHUNK])), files.pixels(torch.tensor([0, CHUNK])))
    with pytest.raises(DataError, match=f"checksum at image {CHUNK - 1}: .* delete it, and it is made again") as error:
        images.pixels(torch.tensor([3, CHUNK - 1]))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    path.unlink()
    assert torch.equal(everything(cached_images(files, tmp_path)), everything(files))


def test_a_flipped_bit_of_a_class_is_found_on_opening(tmp_path, capsys):
    files = make_files(tmp_path, 5)
    path = cached_images(files, tmp_path).path
    flip_bit(path, path.read_bytes().index(files.labels.numpy().tobytes()))
    images = cached_images(files, tmp_path)
    assert images.labels.tolist() == files.labels.tolist()
    assert capsys.readouterr().err == f"{path} has another checksum of its classes; it was made again\n"


def test_a_full_disk_is_one_line_and_the_same_call_goes_on_when_there_is_room(tmp_path, monkeypatch):
    files = make_files(tmp_path, CHUNK + 5)
    write = cache_module.CacheWriter._write

    def full(self, content):
        if self.done >= CHUNK:
            write(self, content.to_pybytes()[:1000] if hasattr(content, "to_pybytes") else content)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, content)

    monkeypatch.setattr(cache_module.CacheWriter, "_write", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); what is done is kept"):
        cached_images(files, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert torch.equal(everything(cached_images(files, tmp_path)), everything(files))


def test_a_disk_that_is_too_small_is_told_before_anything_is_decoded(tmp_path):
    make_files(tmp_path, 1)
    (path,) = files_in(tmp_path).paths
    files = FileImages("toy/train", [path] * 10_000, [0] * 10_000, 20_000)
    with pytest.raises(DataError, match=r"needs 12000\.0 GB"):
        cached_images(files, tmp_path)


def test_a_root_that_cannot_be_written_leaves_the_store_to_the_cache(tmp_path, monkeypatch):
    files = make_files(tmp_path / "data", 5)
    (tmp_path / "data" / ".colotride").write_text("in the way")
    images = cached_images(files, tmp_path / "data")
    assert images.path.is_relative_to(tmp_path / "home" / ".cache" / "colotride")
    monkeypatch.setenv("COLOTRIDE_CACHE", str(tmp_path / "chosen"))
    assert cached_images(files, tmp_path / "data").path.is_relative_to(tmp_path / "chosen")
    monkeypatch.setenv("COLOTRIDE_CACHE", str(tmp_path / "data" / ".colotride" / "x"))
    with pytest.raises(DataError, match="COLOTRIDE_CACHE"):
        cached_images(files, tmp_path / "data")


def test_a_store_beside_one_s_own_class_folders_is_no_class(tmp_path):
    from colotride.data.folder import folder

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(2):
            picture(1, 20, np.random.default_rng(index)).save(tmp_path / label / f"{index}.png")
    first = cached_images(folder(tmp_path, SIZE).test(), tmp_path)
    (tmp_path / ".colotride" / "stray.png").write_bytes(b"")
    again = folder(tmp_path, SIZE).test()
    assert again.labels.tolist() == first.labels.tolist() == [0, 0, 1, 1]
