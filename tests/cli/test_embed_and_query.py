"""colotride embed and colotride query on pictures of one's own."""

import json

import numpy as np
import pytest
import torch
from pyarrow import parquet

import colotride as ct
from colotride.cli.main import execute
from colotride.errors import ColoTrideError
from tests.layouts import picture


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of one epoch, five photographs in two folders, and a file that is no picture."""
    place = tmp_path_factory.mktemp("place")
    overrides = {"pgd.steps": 1, "data.pairs_per_epoch": 64}
    ct.train("digits", defense="natural", directory=place / "run", epochs=1, overrides=overrides, device="cpu")
    random = np.random.default_rng(0)
    for index in range(5):
        folder = place / "photos" / f"part{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(index, 20, random).save(folder / f"{index}.png")
    (place / "photos" / "broken.png").write_bytes(b"no picture")
    return place


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def test_every_picture_has_a_row_that_the_library_computes_too(capsys):
    assert execute("embed", ["photos", "--model", "run", "--device", "cpu", "--out", "e.parquet", "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert (told["pictures"], told["dimensions"], list(told["skipped"])) == (5, 64, ["photos/broken.png"])
    assert "broken.png cannot be decoded" in printed.err
    table = parquet.read_table("e.parquet")
    paths = table["path"].to_pylist()
    assert paths == sorted(f"photos/part{index % 2}/{index}.png" for index in range(5))
    expected = ct.load("run", device="cpu").embed(paths)
    assert torch.allclose(torch.tensor(table["embedding"].to_pylist()), expected, atol=1e-6)

    execute("embed", ["photos", "--model", "run", "--device", "cpu", "--out", "e.npy"])
    assert np.allclose(np.load("e.npy"), expected, atol=1e-6)


def test_a_picture_finds_itself_first_and_the_index_answers_as_the_gallery_does(capsys):
    asked = ["photos/part1/3.png", "--model", "run", "--device", "cpu", "-k", "3", "--json"]
    execute("query", [*asked, "--gallery", "photos", "--index", "photos.index"])
    found = json.loads(capsys.readouterr().out)
    assert found[0] == {"path": "photos/part1/3.png", "distance": pytest.approx(0, abs=1e-3)}
    assert len(found) == 3
    assert [one["distance"] for one in found] == sorted(one["distance"] for one in found)
    execute("query", [*asked, "--index", "photos.index"])
    assert json.loads(capsys.readouterr().out) == found
    execute("query", [*asked[:-1], "--index", "photos.index"])
    assert capsys.readouterr().out.splitlines()[1].endswith(found[1]["path"])


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_an_index_made_before_answers_as_one_made_with_the_query(capsys, kind):
    out = f"{kind}.index"
    execute("index", ["photos", "--model", "run", "--device", "cpu", "--kind", kind, "--out", out, "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) | {"skipped": ()} == {"out": out, "pictures": 5, "kind": kind, "skipped": ()}
    assert "broken.png cannot be decoded" in printed.err
    asked = ["photos/part0/2.png", "--model", "run", "--device", "cpu", "--json"]
    execute("query", [*asked, "--gallery", "photos"])
    found = json.loads(capsys.readouterr().out)
    execute("query", [*asked, "--index", out])
    assert json.loads(capsys.readouterr().out) == [one | {"distance": pytest.approx(one["distance"])} for one in found]


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        ("embed", ["nowhere", "--model", "run"], "nowhere is not a folder"),
        ("embed", ["photos", "--model", "run", "--out", "e.csv"], "neither a .parquet nor a .npy"),
        ("index", ["nowhere", "--model", "run"], "nowhere is not a folder"),
        ("index", ["photos", "--model", "run", "--kind", "tree"], "--kind tree: should be 'auto', 'exact' or 'hnsw'"),
        ("query", ["photos/part1/3.png", "--model", "run"], "--gallery FOLDER"),
        ("query", ["photos/part1/3.png", "--model", "run", "--index", "run/config.yaml"], "cannot be read"),
        ("query", ["absent.png", "--model", "run", "--gallery", "photos"], "absent.png"),
    ],
)
def test_bad_input_is_one_line(command, arguments, line):
    with pytest.raises(ColoTrideError) as error:
        execute(command, arguments)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
