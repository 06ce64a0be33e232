"""scripts/download.py as a user runs it."""

import hashlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from colotride.data.settings import DataSettings
from colotride.data.splits import load_test
from tests.commands import ROOT, environment, refused, run
from tests.layouts import picture
from tests.servers import archives_of, serving

pytestmark = pytest.mark.slow

LAUNCHER = """
import runpy, signal, sys
# A shell lets what it runs in the background, such as these tests, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from colotride.data import archives, download, transfer
from colotride.data.archives import Archive, DatasetArchives
download.ARCHIVES = archives.ARCHIVES = {table!r}
transfer.PAUSES = {pauses}
runpy.run_path({script!r}, run_name="__main__")
"""
"""The script with the table of tiny archives in place of the real one, whose checksums no test can meet."""


def launcher(folder, table, pauses=(0.01, 0.01)):
    path = folder / "launcher.py"
    path.write_text(LAUNCHER.format(table=table, pauses=pauses, script=str(ROOT / "scripts/download.py")))
    return str(path)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_set_is_fetched_in_spite_of_drops_and_found_the_next_time(tmp_path):
    holding, files = archives_of("fashion-mnist", tmp_path / "made")
    script, root = launcher(tmp_path, {"fashion-mnist": holding}), tmp_path / "data"
    with serving(files, "drop", "drop", "no range") as server:
        asked = ("fashion-mnist", "--mirror", server.address)
        done = run(script, *asked, "--keep-archives", cwd=tmp_path, COLOTRIDE_DATA=str(root))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert done.stderr == f"fashion-mnist is in {root}/FashionMNIST/raw\n"
        requests = len(server.ranges)
        again = run(script, *asked, "--data-root", "data", cwd=tmp_path)
        assert (again.returncode, again.stderr) == (0, "fashion-mnist is already in data/FashionMNIST/raw\n")
        assert len(server.ranges) == requests
    assert names_in(root) == ["FashionMNIST", *sorted(files)]
    assert names_in(root / "FashionMNIST" / "raw") == sorted(files)


def test_other_content_is_refused_in_one_line_with_both_checksums(tmp_path):
    files = {"CUB_200_2011.tgz": b"<html>not an archive</html>"}
    with serving(files) as server:
        line = refused(
            run("scripts/download.py", "cub", "--data-root", "data", "--mirror", server.address, cwd=tmp_path)
        )
        assert len(server.ranges) == 2
    assert hashlib.md5(files["CUB_200_2011.tgz"]).hexdigest() in line
    assert "expected 97eceeb196236b17998738112f37df78" in line
    assert "--mirror" in line
    assert names_in(tmp_path / "data") == []


def test_an_unknown_set_and_an_absent_file_are_one_line_and_exit_2(tmp_path):
    assert "DATASET mnist: should be" in refused(run("scripts/download.py", "mnist", cwd=tmp_path))
    assert names_in(tmp_path) == [], "nothing is left behind"
    with serving({}) as server:
        line = refused(run("scripts/download.py", "cars", "--mirror", server.address, cwd=tmp_path))
    assert f"{server.address}/car_ims.tgz cannot be fetched (HTTP status 404 Not Found)" in line
    assert f"put car_ims.tgz with the MD5 checksum d5c8f0aa497503f355e17dc7886c3f14 into {tmp_path / 'data'}" in line


def test_a_download_that_was_stopped_goes_on_when_the_command_is_given_again(tmp_path):
    holding, files = archives_of("cub", tmp_path / "made")
    # The connection drops once, and the pause after it is long enough to stop the process in.
    script = launcher(tmp_path, {"cub": holding}, pauses=(600.0,))
    part = tmp_path / "data" / "CUB_200_2011.tgz.part"
    with serving(files, "drop") as server:
        asked = [script, "cub", "--data-root", "data", "--mirror", server.address]
        process = subprocess.Popen(
            [sys.executable, *asked], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, said) == (130, "interrupted\n")
        kept = part.stat().st_size
        done = run(*asked, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.ranges == [None, f"bytes={kept}-"]
    assert names_in(tmp_path / "data") == [".colotride", "CUB_200_2011"]
    stores = [name for name in names_in(tmp_path / "data" / ".colotride") if name.endswith(".arrow")]
    assert [name.rpartition("-")[0] for name in stores] == ["cub-test", "cub-train"]
    assert "cub/train: 24 images are stored in data/.colotride/cub-train-" in done.stderr


def test_one_s_own_images_are_stored_verified_and_pushed_to_where_an_evaluation_finds_them(tmp_path, monkeypatch):
    for label in range(2):
        (tmp_path / "mine" / str(label)).mkdir(parents=True)
        for index in range(2):
            picture(label, 20, np.random.default_rng(index)).save(tmp_path / "mine" / str(label) / f"{index}.png")
    address = f"file://{tmp_path}/shared"
    asked = ("folder", "--data-root", "mine", "--stored-size", "16", "--verify")
    done = run("scripts/download.py", *asked, "--push", address, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (store,) = (tmp_path / "mine" / ".colotride").glob("folder-test-*.arrow")
    assert done.stderr.splitlines() == [
        f"folder/test: 4 images are stored in mine/.colotride/{store.name}",
        f"folder is at {address}: give that as --data-root",
    ]
    sound = store.read_bytes()
    store.write_bytes(sound[:2500] + bytes([sound[2500] ^ 1]) + sound[2501:])
    again = run("scripts/download.py", *asked, cwd=tmp_path)
    assert f"mine/.colotride/{store.name} has another checksum at image " in again.stderr
    assert "it was made again" in again.stderr
    assert store.read_bytes() == sound
    line = refused(run("scripts/download.py", "folder", "--data-root", address, "--stored-size", "16", cwd=tmp_path))
    assert f"data root {address} is an address; give the folder that holds the images" in line
    line = refused(run("scripts/download.py", "cub", cwd=tmp_path, COLOTRIDE_DATA="s3://bucket/data"))
    assert "data root s3://bucket/data is an address" in line
    monkeypatch.setenv("COLOTRIDE_CACHE", str(tmp_path / "cache"))
    there = load_test(DataSettings(name="folder", root=address, stored_size=16, image_size=16))
    assert there.labels.tolist() == [0, 0, 1, 1]
    assert "--stored-size 0: should be" in refused(run("scripts/download.py", *asked[:4], "0", cwd=tmp_path))
