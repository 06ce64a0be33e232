"""Commands that write one file or begin a search: a bad place is one line, and with room the same command goes on."""

import contextlib
import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from colotride.cli import main
from colotride.locking import owned
from colotride.tune.api import taken
from colotride.tune.plan import save_plan
from tests.faults.surroundings import TINY, call, contents, full_disk, no_file_longer_than, refused
from tests.tune.searches import small_plan

EMBED = ("embed", "pictures", "--model", "run", "--out", "made/embeddings.parquet")
QUERY = ("query", "pictures/0.png", "--model", "run", "--gallery", "pictures", "--index", "made/photos.index")
INDEX = ("index", "pictures", "--model", "run", "--out", "made/photos.index")
COMMANDS = {"embed": EMBED, "index": INDEX, "query": QUERY}
OUTPUT = {"embed": "made/embeddings.parquet", "index": "made/photos.index", "query": "made/photos.index"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a trained run and pictures."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.raises(SystemExit) as ended:
        main.run("train", ["--directory", str(folder / "run"), "--epochs", "1", "--no-track", *TINY])
    assert ended.value.code == 0
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.new("L", (40, 40), 60 * number).save(folder / f"pictures/{number}.png")
    return folder


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_takes_nothing_is_one_line_and_the_same_command_goes_on(command, reason, place, capsys):
    before = contents(place)
    with full_disk(reason):
        refused(call(capsys, *COMMANDS[command]), "made", os.strerror(reason))
    assert contents(place) == before
    assert call(capsys, *COMMANDS[command]).code == 0
    assert Path(OUTPUT[command]).stat().st_size > 100


@pytest.mark.parametrize("command", COMMANDS)
def test_an_older_output_survives_a_disk_that_fills_while_it_is_replaced(command, place, capsys):
    assert call(capsys, *COMMANDS[command]).code == 0
    before = contents(place)
    with no_file_longer_than(len(before[OUTPUT[command]]) - 1):
        refused(call(capsys, *COMMANDS[command]), "made")
    assert contents(place) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("way", ["a file for its folder", "a folder for the file"])
def test_what_is_in_the_way_is_named_and_stays(way, command, place, capsys):
    if way == "a file for its folder":
        Path("made").write_text("mine")
    else:
        Path(OUTPUT[command]).mkdir(parents=True)
        (Path(OUTPUT[command]) / "kept").write_text("mine")
    before = contents(place)
    refused(call(capsys, *COMMANDS[command]), "made")
    assert contents(place) == before


# One owner, also where a folder is shared.


def _own(folder, lock, ready, leave):
    with owned(folder, "search", lock=lock):
        ready.set()
        leave.wait(60)


@contextlib.contextmanager
def another_owner(folder, lock=None):
    """A living process that owns a folder."""
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=_own, args=(folder, lock, ready, leave), daemon=True)
    process.start()
    assert ready.wait(30)
    try:
        yield process.pid
    finally:
        leave.set()
        process.join(30)


def test_a_search_that_runs_elsewhere_is_refused_before_ray_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = Path("made/first")
    folder.mkdir(parents=True)
    save_plan(small_plan(), folder)
    started = []
    monkeypatch.setattr("colotride.tune.api.start_ray", lambda: started.append(True))
    with another_owner(folder) as pid:
        before = contents(tmp_path)
        refused(call(capsys, "search", "--results", "made", "--resume", "first"), folder, f"process {pid}")
        assert contents(tmp_path) == before
    assert not started


def test_a_reproduction_into_a_folder_that_is_in_use_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("colotride.cli.reproduce.start_ray", lambda: None)
    with another_owner(tmp_path / "made/digits") as pid:
        before = contents(tmp_path)
        words = ("reproduce", "table4", "--dataset", "digits", "--results", "made")
        refused(call(capsys, *words), "made/digits", f"process {pid}")
        assert contents(tmp_path) == before


def test_a_data_set_that_is_being_downloaded_is_refused(tmp_path, capsys):
    with another_owner(tmp_path, tmp_path / ".cub.lock") as pid:
        before = contents(tmp_path)
        words = ("download", "cub", "--data-root", tmp_path, "--mirror", "http://127.0.0.1:9")
        refused(call(capsys, *words), tmp_path, f"process {pid}")
        assert contents(tmp_path) == before


def test_ray_that_does_not_start_is_one_line_and_nothing_stays(tmp_path, monkeypatch, capsys):
    attempts = []

    def init(**_):
        attempts.append(1)
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refused(call(capsys, "search", "--name", "first", "--results", "made"), "Ray cannot be started", "timed out")
    assert len(attempts) == 2, "a busy machine may be too slow once"
    assert not list(tmp_path.iterdir())


def test_a_search_whose_driver_was_killed_before_it_had_a_plan_begins_anew(tmp_path):
    folder = tmp_path / "first"
    assert not taken(folder)
    folder.mkdir()
    (folder / ".lock").write_text("1234")
    (folder / ".search.json.x7k2").write_text("{")
    assert not taken(folder), "neither --resume nor the same name could go on with it"
    (folder / ".hidden").write_text("")
    assert taken(folder)
    (folder / ".hidden").unlink()
    (folder / "search.json").write_text("{}")
    assert taken(folder)
    assert taken(folder / "search.json")
