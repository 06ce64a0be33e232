"""A disk that is full or read-only, or has a file where a folder should be: one line, and then the same command goes on."""

import errno
import json
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from colotride.cli import main
from colotride.disk import REMEDIES, check_writable
from colotride.errors import StorageError
from colotride.io import write_atomically
from colotride.locking import LOCK, owned
from colotride.tune.journal import CheckedJournal
from tests.faults.surroundings import TINY, call, contents, full_disk, no_file_longer_than, refused

pytestmark = pytest.mark.slow

REASONS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]

TRAIN = ("train", "--directory", "made/run", "--epochs", "1", "--no-track", *TINY)
EVALUATE = ("evaluate", "--model", "run", "--output", "made/evaluation", "--example-queries", "0", "--no-track")
EMBED = ("embed", "pictures", "--model", "run", "--out", "made/embeddings.npy")
APPENDIX = ("reproduce", "appendix-a", "--results", "made")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a trained run, pictures and nothing else."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.raises(SystemExit) as ended:
        main.run("train", ["--directory", str(folder / "run"), "--epochs", "1", "--no-track", *TINY])
    assert ended.value.code == 0
    return folder


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {"train": TRAIN, "evaluate": EVALUATE, "reproduce": APPENDIX}
FULL = [
    *(pytest.param(command, reason, id=f"{command} {errno.errorcode[reason]}")
      for command in ("train", "evaluate") for reason in REASONS),
    pytest.param("reproduce", errno.ENOSPC, id="reproduce ENOSPC"),
]  # fmt: skip
ROOM = [*((command, size) for command in ("train", "evaluate") for size in (0, 100, 4000)), ("reproduce", 4000)]


@pytest.mark.parametrize(("command", "reason"), FULL)
def test_a_disk_that_takes_nothing_is_one_line_and_the_same_command_goes_on(command, reason, place, capsys):
    before = contents(place)
    with full_disk(reason):
        refused(call(capsys, *COMMANDS[command]), "made", os.strerror(reason))
    assert contents(place).items() >= before.items()
    assert call(capsys, *COMMANDS[command]).code == 0


@pytest.mark.parametrize(("command", "size"), ROOM)
def test_a_disk_on_which_some_files_fit_costs_nothing(command, size, place, capsys):
    before = contents(place)
    with no_file_longer_than(size):
        refused(call(capsys, *COMMANDS[command]), "made")
    assert contents(place).items() >= before.items()
    assert not list(place.rglob(".*.*")), "no temporary file is left"
    again = (*COMMANDS[command], "--resume") if command == "evaluate" else COMMANDS[command]
    assert call(capsys, *again).code == 0


IN_THE_WAY = [
    *((TRAIN, f"made/{name}") for name in ("", "run", "run/checkpoints", "run/.lock/x", "run/config.yaml/x")),
    *((TRAIN, f"made/run/{name}/x") for name in ("history.jsonl", "summary.json")),
    *((EVALUATE, f"made/{name}") for name in ("", "evaluation", "evaluation/partial")),
    *((EVALUATE, f"made/evaluation/{name}/x") for name in ("evaluation.json", "report.html", "benign.parquet")),
    *(((*EVALUATE, "--leaderboard", "made/board.jsonl"), name) for name in ("made/board.jsonl/x",)),
    *(((*EVALUATE, "--leaderboard", "other/board.jsonl"), name) for name in ("other",)),
    *((APPENDIX, f"made{name}") for name in ("", "/appendix-a.md/x", "/appendix-a.json/x")),
    *((APPENDIX, f"made/appendix-a.{name}/x") for name in ("png",)),
    *((("search", "--name", "first", "--results", "made"), name) for name in ("made", "made/first")),
]
"""Commands, and what lies where they write: a file, or for a path that ends in /x a folder with a file x."""


@pytest.mark.parametrize(
    ("command", "path"), IN_THE_WAY, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_what_is_in_the_way_is_named_and_stays(command, path, place, capsys):
    there = Path(path)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_text("mine")
    refused(call(capsys, *command), path.removesuffix("/x").rstrip("/"))
    assert there.read_text() == "mine"


def test_an_output_that_is_full_is_one_line(place, capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(os, "dup2", lambda *_: None)
        line = refused(call(capsys, *APPENDIX), "standard output")
        monkeypatch.undo()
        assert "No space left" in line
        with pytest.raises(OSError, match="No space left"):
            full.close()


# The layers themselves.


@pytest.mark.parametrize("number", REMEDIES, ids=lambda number: errno.errorcode[number])
def test_every_failure_of_the_disk_names_path_and_remedy_and_leaves_the_old_file(number, tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with full_disk(number), pytest.raises(StorageError) as told:
        write_atomically(tmp_path / "file", b"new")
    assert str(tmp_path / "file") in str(told.value)
    assert REMEDIES[number] in str(told.value)
    assert contents(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EPIPE])
def test_what_is_no_failure_of_the_disk_stays_what_it_is(number, tmp_path):
    with full_disk(number), pytest.raises(OSError, match=os.strerror(number)) as told:
        write_atomically(tmp_path / "file", b"new")
    assert not isinstance(told.value, StorageError)


def test_room_is_probed_without_a_trace(tmp_path):
    check_writable(tmp_path / "a/b", size=1 << 20)
    with no_file_longer_than(1000), pytest.raises(StorageError):
        check_writable(tmp_path / "a/b", size=1 << 20)
    assert not contents(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 50, 150, 250])
def test_a_study_that_cannot_be_written_is_as_it_was_and_goes_on(size, tmp_path):
    path = tmp_path / "journal"
    journal = CheckedJournal(path)
    journal.append_logs([{"op_code": 2, "value": 1}])
    before = path.read_bytes()
    with no_file_longer_than(size), pytest.raises(StorageError):
        journal.append_logs([{"op_code": 2, "value": "x" * 300}])
    assert path.read_bytes() == before
    journal.append_logs([{"op_code": 2, "value": 2}])
    assert [log["value"] for log in CheckedJournal(path).read_logs(0)] == [1, 2]


# One owner per folder.


def _own(folder, ready, leave):
    with owned(folder, "run"):
        ready.set()
        leave.wait(60)


@pytest.fixture(scope="module")
def other_owner(tmp_path_factory):
    """A folder that another process owns, that process, and what lets it go."""
    folder = tmp_path_factory.mktemp("owned") / "made"
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=_own, args=(folder, ready, leave), daemon=True)
    process.start()
    assert ready.wait(30)
    yield folder, process
    process.kill()
    process.join()


def test_a_second_owner_is_refused_and_told_of_the_first(other_owner):
    folder, process = other_owner
    with pytest.raises(StorageError, match=f"process {process.pid} on"), owned(folder, "run"):
        raise AssertionError("owned twice")


OWNING = {
    "train": lambda folder: ("train", "--directory", folder, "--epochs", "1", "--no-track", *TINY),
    "evaluate": lambda folder: ("evaluate", "--model", "run", "--output", folder, "--no-track"),
}


@pytest.mark.parametrize("command", OWNING)
def test_commands_refuse_the_folder_of_another_process_and_write_nothing(command, other_owner, place, capsys):
    folder, process = other_owner
    before = contents(folder)
    refused(call(capsys, *OWNING[command](folder)), folder, f"process {process.pid}")
    assert contents(folder) == before


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_own, args=(tmp_path / "run", ready, context.Event()))
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    assert (tmp_path / "run" / LOCK).read_text().startswith(f"process {process.pid} ")
    with owned(tmp_path / "run", "run"):
        assert (tmp_path / "run" / LOCK).read_text().startswith(f"process {os.getpid()} ")
    assert not (tmp_path / "run" / LOCK).exists()


def test_an_owner_that_wrote_nothing_leaves_nothing(tmp_path):
    with owned(tmp_path / "a/b/c", "run"):
        pass
    assert not list(tmp_path.iterdir())


# Options that cannot work.


@pytest.mark.parametrize("address", ["ftp://there", "nope://there", "mlflow.db", "sqlite:/x", ""])
@pytest.mark.parametrize("command", ["train", "search", "reproduce"])
def test_a_store_that_mlflow_does_not_know_is_refused_before_anything_is_written(
    command, address, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = {
        "train": ("train", "--directory", "made"),
        "search": ("search", "--name", "made"),
        "reproduce": APPENDIX[:1],
    }
    refused(call(capsys, *words[command], "--tracking-uri", address), "--tracking-uri")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["nope://there", "ftp://there", "/shared/disk", "s3:bucket", ""])
@pytest.mark.parametrize("command", ["train", "search"])
def test_storage_that_nobody_knows_is_refused_before_anything_is_written(
    command, address, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = {"train": ("train", "--directory", "made"), "search": ("search", "--name", "made")}
    refused(call(capsys, *words[command], "--storage", address), "--storage")
    assert not list(tmp_path.iterdir())


def test_an_evaluation_that_is_refused_at_its_leaderboard_was_not_begun(place, capsys):
    Path("board").mkdir()
    refused(call(capsys, *EVALUATE, "--leaderboard", "board"), "board is a folder")
    assert not Path("made").exists()


def test_evaluations_that_end_together_are_all_on_the_leaderboard(place, capsys):
    assert call(capsys, *EVALUATE, "--leaderboard", "board.jsonl").code == 0
    assert call(capsys, *EVALUATE, "--leaderboard", "board.jsonl").code == 0
    assert len([json.loads(line) for line in Path("board.jsonl").read_text().splitlines()]) == 2
    assert not Path(".board.jsonl.lock").exists()


def test_a_benchmark_asks_for_its_disk_before_it_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for reason in REASONS:
        with full_disk(reason):
            refused(call(capsys, "benchmark", "step", "--output", "made"), "made", os.strerror(reason))


def test_a_sync_that_cannot_note_what_it_sent_says_so_and_doubles_nothing_later(place, capsys, monkeypatch):
    uri = f"sqlite:///{place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert call(capsys, *(word for word in TRAIN if word != "--no-track")).code == 0
    sent = next((place / "made").rglob("sent.json"))
    sent.unlink()
    before = contents(place / "made")
    with full_disk(errno.ENOSPC):
        told = call(capsys, "sync", "made/run")
    assert "sent.json cannot be written or read (No space left on device)" in told.err
    assert contents(place / "made").items() >= before.items()
    assert call(capsys, "sync", "made/run").code == 0
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("colotride").experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1]
