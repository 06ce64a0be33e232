"""Damaged records: every command that reads one refuses it in one line that names it, and changes no byte."""

import json
import shutil

import optuna
import pytest

from colotride.cli import main
from colotride.errors import SearchError
from colotride.tracking.export import Tracker
from colotride.tune.plan import save_plan
from colotride.tune.study import JOURNAL, SearchStudy
from tests.faults.surroundings import NO_DOCUMENT, TINY, call, contents, refused
from tests.tune.searches import reported, small_plan


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that was trained; to be copied before it is damaged."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as ended:
        main.run("train", ["--directory", str(folder), "--epochs", "1", "--no-track", *TINY])
    assert ended.value.code == 0
    return folder


READERS = {
    "train --config": ("train", "--no-track", "--directory", "run", "--config"),
    "search --config": ("search", "--name", "new", "--config"),
    "search --space": ("search", "--name", "new", "--space"),
    "search --start-from": ("search", "--name", "new", "--start-from"),
}
"""Commands by the option that names a document."""


@pytest.mark.parametrize("content", NO_DOCUMENT)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_document_is_refused(reader, content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.yaml").write_bytes(NO_DOCUMENT[content])
    before = contents(tmp_path)
    refused(call(capsys, *READERS[reader], "given.yaml"), "given.yaml")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", NO_DOCUMENT)
@pytest.mark.parametrize("command", ["evaluate", "embed"])
def test_a_run_whose_configuration_is_damaged_is_refused(command, content, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    (tmp_path / "run/config.yaml").write_bytes(NO_DOCUMENT[content])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").touch()
    before = contents(tmp_path)
    rest = {"evaluate": (), "embed": ("pictures", "--out", "out.npy")}[command]
    refused(call(capsys, command, "--model", "run", *rest), "config.yaml")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", NO_DOCUMENT)
def test_a_plan_that_is_damaged_is_refused(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/search/old").mkdir(parents=True)
    (tmp_path / "runs/search/old/search.json").write_bytes(NO_DOCUMENT[content])
    before = contents(tmp_path)
    refused(call(capsys, "search", "--resume", "old"), "search.json")
    assert contents(tmp_path) == before


def edited(old, new):
    return lambda text: text.replace(old, new)


DISAGREEING = {
    "another width": edited("dim: ", "dim: 1"),
    "another architecture": edited("two-convolutions", "resnet18"),
}


@pytest.mark.parametrize("edit", DISAGREEING)
def test_a_configuration_that_disagrees_with_the_weights_is_refused(edit, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    path = tmp_path / "run/config.yaml"
    text = DISAGREEING[edit](path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    refused(call(capsys, "evaluate", "--model", "run"), "config.yaml", "another model than the weights")


def test_a_configuration_that_was_edited_is_named(trained, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    assert call(capsys, "evaluate", "--model", "run", "--example-queries", 0).code == 0
    assert not caplog.messages
    path = tmp_path / "run/config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert call(capsys, "evaluate", "--model", "run", "--example-queries", 0).code == 0
    assert "config.yaml is not what these weights were trained with" in caplog.text


ENTRY = {
    "model": "m", "dataset": "d", "protocol": "strict", "epsilon": 0.03, "steps": 8, "queries": 4,
    "benign": {"R@1": 50.0}, "ERS": 10.0, "ARS": 20.0, "intervals": {},
}  # fmt: skip
UNUSABLE = ("missing", "a text", None, float("nan"), float("inf"), [], {})
USABLE = {"model": str, "dataset": str, "protocol": str, "benign": dict, "intervals": dict}
FIELDS = [
    (name, value)
    for name in ENTRY
    for value in UNUSABLE
    if value == "missing" or not isinstance(value, USABLE.get(name, ()))
]


@pytest.mark.parametrize(("name", "value"), FIELDS)
def test_a_line_of_a_leaderboard_with_an_unusable_field_is_named(name, value, tmp_path, capsys):
    line = dict(ENTRY, **{name: value})
    if value == "missing":
        del line[name]
    path = tmp_path / "board.jsonl"
    path.write_text(json.dumps(ENTRY) + "\n" + json.dumps(line) + "\n")
    before = contents(tmp_path)
    refused(call(capsys, "leaderboard", "table", path), path, "line 2")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [name for name, value in NO_DOCUMENT.items() if value])
def test_a_line_of_a_leaderboard_that_is_no_entry_is_named(content, tmp_path, capsys):
    path = tmp_path / "board.jsonl"
    path.write_bytes(json.dumps(ENTRY).encode() + b"\n" + NO_DOCUMENT[content])
    refused(call(capsys, "leaderboard", "table", path), path, "line ")


# The study of a search.


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """The folder of a search with three trials, one of which runs."""
    folder = tmp_path_factory.mktemp("search") / "first"
    plan = small_plan()
    save_plan(plan, folder)
    study = SearchStudy(folder, plan)
    for value in (10, 20):
        record = study.draw()
        study.report(reported(record, 1, value))
        study.report(reported(record, 12, value, status="finished"))
        study.settle(record.number)
    study.draw()
    return folder


def lines_of(folder):
    return (folder / JOURNAL).read_bytes().splitlines(keepends=True)


def opened(folder, plan=None):
    return SearchStudy(folder, plan or small_plan())


def test_an_undamaged_study_is_read_as_it_was_and_opens_in_optuna(search, tmp_path):
    shutil.copytree(search, tmp_path / "first")
    study = opened(tmp_path / "first")
    assert [one.status for one in study.records()] == ["finished", "finished", "running"]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(search / JOURNAL)))
    (name,) = optuna.get_all_study_names(storage)
    assert len(optuna.load_study(study_name=name, storage=storage).trials) == 3


@pytest.mark.parametrize("share", [step / 20 for step in range(20)])
@pytest.mark.parametrize("damage", ["missing", "twice", "foreign", "altered", "binary", "swapped"])
def test_a_line_that_is_not_what_it_was_is_named(damage, share, search, tmp_path):
    shutil.copytree(search, tmp_path / "first")
    lines = lines_of(search)
    place = int(share * (len(lines) - 1))
    foreign = b'{"op_code":4,"worker_id":"x","study_id":0,"datetime_start":"2026-01-01T00:00:00.000000"}\n'
    altered = json.loads(lines[place]) | {"worker_id": "another"}
    lines[place : place + 1] = {
        "missing": [],
        "twice": [lines[place]] * 2,
        "foreign": [lines[place], foreign],
        "altered": [json.dumps(altered).encode() + b"\n"],
        "binary": [lines[place], b"\x80\x00\xff\n"],
        "swapped": [lines[place + 1], lines[place]],
    }[damage]
    if damage == "swapped":
        del lines[place + 2]
    path = tmp_path / "first" / JOURNAL
    path.write_bytes(b"".join(lines))
    before = contents(tmp_path)
    with pytest.raises(SearchError) as told:
        opened(tmp_path / "first")
    assert f"{path}, line " in str(told.value)
    assert place < int(str(told.value).split("line ")[1].split(",")[0]) <= place + 2
    assert "\n" not in str(told.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kept", range(1, 40, 4))
def test_a_torn_line_is_cut_and_counted(kept, search, tmp_path):
    shutil.copytree(search, tmp_path / "first")
    path = tmp_path / "first" / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + lines_of(search)[0][:kept])
    assert opened(tmp_path / "first").cut == kept
    assert path.read_bytes().startswith(whole)


def test_a_journal_that_ends_before_a_trial_that_was_trained_is_refused(search, tmp_path):
    shutil.copytree(search, tmp_path / "first")
    (tmp_path / "first/trials/004").mkdir(parents=True)
    with pytest.raises(SearchError, match="ends before trial 4"):
        opened(tmp_path / "first")


CHANGES = {
    "sampler": {"sampler": "random"},
    "seed": {"seed": 5},
    "max_cost": {"max_cost": 3.0},
    "base": {"base": small_plan().base.with_values({"pgd.steps": 3})},
    "initial_points": {"initial_points": ()},
    "stopping": {"stopping": "none"},
    "objectives": {"objectives": ("R@1",)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_plan_that_was_edited_after_the_search_began_is_refused(name, search, tmp_path):
    shutil.copytree(search, tmp_path / "first")
    with pytest.raises(SearchError, match=rf"search.json was changed.*in {name}"):
        opened(tmp_path / "first", small_plan().model_copy(update=CHANGES[name]))


@pytest.mark.parametrize("changes", [{"trials": 9}, {"trials": 1}, {"top": 2}, {"concurrent": 1}])
def test_what_may_change_is_no_edit(changes, search, tmp_path):
    shutil.copytree(search, tmp_path / "first")
    assert len(opened(tmp_path / "first", small_plan(**changes)).records()) == 3


# The record for MLflow.


@pytest.mark.parametrize("content", [name for name, value in NO_DOCUMENT.items() if value])
def test_a_damaged_line_for_mlflow_is_named_and_costs_only_itself(content, tmp_path):
    warnings = []
    first = Tracker(f"sqlite:///{tmp_path}/absent/mlflow.db", tmp_path / "run", warnings.append)
    first.start("run", "run", parameters={}, tags={})
    first.metrics("run", {"loss": 1.0})
    path = tmp_path / "run/mlflow/journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n", b"\n" + NO_DOCUMENT[content].replace(b"\n", b" ") + b"\n", 1))
    (tmp_path / "run/mlflow/sent.json").write_bytes(NO_DOCUMENT[content])
    again = Tracker(f"sqlite:///{tmp_path}/absent/mlflow.db", tmp_path / "run", warnings.append)
    assert [entry["do"] for entry, _ in again._journal.read()] == ["start", "metrics"]
    assert any(f"{path}, line 2, is no entry" in line for line in warnings), warnings
    assert not again.start("run", "run", parameters={}, tags={}), "what is whole is known"
