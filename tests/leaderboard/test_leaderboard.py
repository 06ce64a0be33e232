"""Records of evaluated models: written, read, checked from the checkpoint, and compared on a page."""

import json
import re

import pytest

from colotride.api import evaluate, train
from colotride.cli.arguments import parse
from colotride.cli.evaluate import subject_of
from colotride.cli.options.evaluate import Evaluate
from colotride.errors import CheckpointError, DataError
from colotride.evaluation.results import save_evaluation
from colotride.leaderboard.page import write_page
from colotride.leaderboard.published import published_records
from colotride.leaderboard.records import Record, read_record, read_records, record_of, write_record
from colotride.reproduction.paper import paper_tables
from tests.browser.chromium import open_file, widest_content
from tests.commands import refused, run
from tests.short_runs import SHORT


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run that was evaluated, and its record."""
    folder = tmp_path_factory.mktemp("board")
    trained = train("digits", defense="natural", directory=folder / "mine", overrides=SHORT)
    result = evaluate(trained, queries=20, steps=3, bootstrap=50)
    save_evaluation(result, folder / "mine" / "evaluation")
    write_record(
        folder / "records/mine.json", record_of(folder / "mine", model="Mine", link="https://example.org/mine")
    )
    return folder


def changed(place, path, **changes):
    values = json.loads((place / "records/mine.json").read_text()) | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def test_a_record_holds_the_evaluation_and_what_it_was_made_of(place):
    record = read_record(place / "records/mine.json")
    result = json.loads((place / "mine/evaluation/evaluation.json").read_text())
    assert {name: result[name] for name in ("ERS", "ARS")} == {"ERS": record.ERS, "ARS": record.ARS}
    assert record.benign == result["benign"]
    assert record.attacked == result["attacked"]
    assert record.intervals["ARS"] == tuple(result["intervals"]["ARS"])
    assert (record.dataset, record.network, record.queries, record.steps) == ("digits", "two-convolutions", 20, 3)
    assert record.provenance == "natural, 1 epochs, seed 0"
    assert len(record.digest) == 64


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ARS": "high"}, "ARS"),
        ({"ARS": 201}, "ARS"),
        ({"protocol": "easy"}, "protocol"),
        ({"format": "colotride record 9"}, "format"),
        ({"extra": 1}, "extra"),
        ({"digest": None}, "a measured record needs digest"),
        ({"link": "javascript:alert(1)"}, "link"),
        ({"model": ""}, "model"),
        ({"benign": {"R@1": None}}, "benign.R@1"),
    ],
)
def test_what_is_no_record_is_refused_with_its_field(place, tmp_path, changes, complaint):
    path = changed(place, tmp_path / "bad.json", **changes)
    with pytest.raises(DataError, match=re.escape(complaint)) as raised:
        read_record(path)
    assert str(path) in str(raised.value)


def test_a_run_without_an_evaluation_has_no_record(place, tmp_path):
    train("digits", defense="natural", directory=tmp_path / "new", overrides=SHORT)
    with pytest.raises(CheckpointError, match="was not evaluated yet; do so with colotride evaluate"):
        record_of(tmp_path / "new", model="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no records"):
        read_records(tmp_path / "empty")


def test_published_records_are_the_papers_tables():
    records = published_records()
    rows = paper_tables()
    assert len(records) == len(rows["table1"]) + len(rows["peers"])
    found = next(one for one in records if (one.dataset, one.model) == ("cub", "COLO-TRIDE"))
    assert (found.benign["R@1"], found.ERS) == (34.9, 38.7)
    assert next(r["ARS"] for r in rows["table2"] if (r["dataset"], r["defense"]) == ("cub", "COLO-TRIDE")) == found.ARS
    assert all(one.origin == "published" and one.provenance for one in records)
    assert {(one.dataset, round(one.epsilon * 255)) for one in records} == {
        ("cub", 8), ("cars", 8), ("sop", 8), ("fashion-mnist", 77),
    }  # fmt: skip


def rows_of(page):
    """Of every table, the names of its models from top to bottom."""
    tables = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    return [
        [
            re.sub(r"<[^>]+>", "", cell).split("\n")[0].strip()
            for cell in re.findall(r"<tr[^>]*><td>(.*?)</td>", one, re.DOTALL)
        ]
        for one in tables
    ]


def test_a_page_never_mixes_what_cannot_be_compared(place, tmp_path):
    record = read_record(place / "records/mine.json")

    def like(model, ars, **changes):
        return record.model_copy(update={"model": model, "ARS": ars} | changes)

    records = [
        like("low", 10.0),
        like("high", 90.0),
        like("none", None),
        like("middle", 50.0),
        like("other epsilon", 99.0, epsilon=0.5),
        like("other norm", 99.0, norm="l2"),
        like("other protocol", 99.0, protocol="strong"),
        like("other set", 99.0, dataset="cub"),
        like("other ARS", 99.0, resistance_definition="ratio of means"),
    ]
    write_page(tmp_path / "page.html", records)
    tables = rows_of((tmp_path / "page.html").read_text())
    assert ["high", "middle", "low", "none"] in tables
    assert sorted(len(one) for one in tables) == [1, 1, 1, 1, 1, 4]


@pytest.mark.slow
def test_the_page_opens_in_a_browser_loads_nothing_and_fits_a_phone(place, tmp_path):
    hostile = read_record(place / "records/mine.json").model_copy(
        update={"model": '<img src=x onerror=alert(1)> $x_1$ & "one"', "authors": "<b>me</b>"}
    )
    path = tmp_path / "page.html"
    write_page(path, [*published_records(), hostile, hostile.model_copy(update={"link": ""})])
    page = open_file(path)
    assert page.complaints == []
    assert "<img" not in page.html
    assert "<b>me</b>" not in page.html
    assert len(re.findall(r"<figure", page.html)) == 4, "a picture where some record has R@1 and ARS"
    assert widest_content(path, 390) <= 390
    once = path.read_bytes()
    write_page(path, [*published_records(), hostile, hostile.model_copy(update={"link": ""})])
    assert path.read_bytes() == once


@pytest.mark.slow
def test_the_commands_of_the_page_do_what_they_say(place, tmp_path):
    done = run("leaderboard", "record", "mine", "--name", "By hand", "--out", str(tmp_path / "own/one.json"), cwd=place)
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "own/one.json").model == "By hand"

    checked = run("leaderboard", "check", str(tmp_path / "own/one.json"), "--model", "mine", cwd=place)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("Reproduced: all ")

    built = run(
        "leaderboard", "build", str(tmp_path / "own"), "--out", str(tmp_path / "page.html"), "--json", cwd=place
    )
    said = json.loads(built.stdout)
    assert said["records"] == len(published_records()) + 1
    assert ["By hand"] in rows_of((tmp_path / "page.html").read_text())
    alone = run("leaderboard", "build", str(tmp_path / "own"), "--no-published", "--json", cwd=tmp_path)
    assert json.loads(alone.stdout)["groups"] == 1


@pytest.mark.slow
def test_a_record_that_its_checkpoint_does_not_give_is_found(place, tmp_path):
    record = read_record(place / "records/mine.json")
    better = changed(place, tmp_path / "better.json", ARS=record.ARS + 1.0, benign=record.benign | {"R@1": 99.0})
    done = run("leaderboard", "check", str(better), "--model", "mine", "--json", cwd=place)
    assert done.returncode == 1
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert set(found) == {"ARS", "R@1"}
    assert found["ARS"]["found"] == pytest.approx(record.ARS, abs=1e-3)

    other = changed(place, tmp_path / "other.json", digest="0" * 64)
    assert "is of other weights" in refused(run("leaderboard", "check", str(other), "--model", "mine", cwd=place))
    assert "--model is missing" in refused(run("leaderboard", "check", str(better), cwd=place))
    write_record(tmp_path / "paper.json", published_records()[0])
    line = refused(run("leaderboard", "check", str(tmp_path / "paper.json"), "--model", "mine", cwd=place))
    assert "published without a checkpoint" in line


def test_a_record_can_be_read_by_anybody():
    schema = Record.model_json_schema()
    assert set(schema["required"]) >= {"model", "dataset", "epsilon", "protocol", "ERS", "ARS", "origin", "provenance"}


def test_results_on_other_pictures_do_not_take_the_place_of_the_runs_own(place):
    own = subject_of(parse(Evaluate, ["--model", str(place / "mine")]))
    same = subject_of(parse(Evaluate, ["--model", str(place / "mine"), "--dataset", "digits"]))
    other = subject_of(parse(Evaluate, ["--model", str(place / "mine"), "--dataset", "fashion-mnist"]))
    assert own.home == same.home == place / "mine/evaluation"
    assert other.home == place / "mine/evaluation-fashion-mnist"
    assert (own.own_data, same.own_data, other.own_data) == (True, True, False)
