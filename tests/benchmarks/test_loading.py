"""The benchmark of loading reads the same images both ways, and sees memory that is not shared."""

import subprocess
import sys

import pytest
import torch

from colotride.data.cache import cached_images
from colotride.data.files import FileImages
from scripts.benchmarks.loading import _proportional, make_photographs, measure_loading


@pytest.mark.slow
def test_a_store_is_faster_than_decoding_and_its_pages_are_shared(tmp_path):
    found = measure_loading(tmp_path, 300, batch=50, rounds=1, workers=(1, 3))
    assert found.images == 300
    assert found.ratio == found.reading / found.decoding
    assert found.ratio >= 5
    assert found.file_mib == pytest.approx(300 * 3 * 256 * 256 / 2**20, rel=0.01)
    alone, three = found.readers
    assert alone.store_mib == pytest.approx(found.file_mib, rel=0.02)
    assert three.store_mib == pytest.approx(found.file_mib, rel=0.02)
    assert three.whole_mib > 2 * (alone.whole_mib - alone.store_mib), "what is not shared does multiply"


def test_memory_of_a_mapped_file_is_told_from_the_rest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(64 << 20))
    code = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n"
    code += "copy = m[:]; print('read', flush=True); sys.stdin.read()"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout.readline() == "read\n"
    mapped, whole = _proportional(reader.pid, path), _proportional(reader.pid, None)
    reader.communicate()
    assert mapped == 64 << 10
    assert whole >= 2 * mapped, "the copy counts too"


def test_photographs_are_files_of_realistic_size(tmp_path):
    paths = make_photographs(tmp_path, 3, (500, 375))
    assert all(30_000 < path.stat().st_size < 200_000 for path in paths)
    before = [path.stat().st_mtime_ns for path in paths]
    assert make_photographs(tmp_path, 3, (500, 375)) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    images = cached_images(FileImages("photographs/train", paths, [0] * 3, 32), tmp_path)
    assert images.pixels(torch.tensor([0, 2])).shape == (2, 3, 32, 32)
