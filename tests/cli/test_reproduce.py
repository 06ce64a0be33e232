"""scripts/reproduce.py as a user runs it."""

import json

import pytest
from mlflow import MlflowClient

from tests.commands import refused, run

QUICK = ("--epochs", "1", "--pairs-per-epoch", "64", "--queries", "12", "--attack-steps", "1")


@pytest.mark.slow
def test_a_table_is_made_once_and_found_again(tmp_path):
    command = ("scripts/reproduce.py", "table4", "--dataset", "digits", "--seeds", "2", *QUICK)
    first = run(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs/reproduce/digits"
    table = json.loads((folder / "table4.json").read_text())
    labels = ["natural", "assist-part", "assist-full", "COLO-TRIDE without early disabling", "COLO-TRIDE"]
    assert [row["defense"] for row in table["rows"]] == labels
    assert [(run["label"], run["seed"]) for run in table["runs"]] == [(label, s) for label in labels for s in (0, 1)]
    assert all(row["ended"] == "2 finished" for row in table["rows"])
    assert "assist-full" in (folder / "table4.md").read_text()
    assert "assist-full" in first.stdout

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("colotride").experiment_id])
    (parent,) = (one for one in runs if "mlflow.parentRunId" not in one.data.tags)
    assert len(runs) == 11
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {
        "table4.md",
        "table4.csv",
        "table4.json",
    }

    trained = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert trained
    again = run(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == trained, "nothing trained twice"
    assert json.loads((folder / "table4.json").read_text())["runs"] == table["runs"]


@pytest.mark.slow
def test_a_figure_is_drawn_from_the_curves_of_its_runs(tmp_path):
    done = run("scripts/reproduce.py", "figure4", "--dataset", "digits", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for suffix in (".png", ".svg", ".md", ".csv", ".json"):
        assert (tmp_path / f"runs/reproduce/digits/figure4{suffix}").stat().st_size > 100


@pytest.mark.slow
def test_appendix_a_needs_no_data(tmp_path):
    done = run("scripts/reproduce.py", "appendix-a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| 180 |" in done.stdout
    assert done.stdout.splitlines()[-2].endswith("| 2.000 |")


@pytest.mark.slow
def test_bad_input_is_one_line(tmp_path):
    assert "nothing is called 'table7'" in refused(run("scripts/reproduce.py", "table7", cwd=tmp_path))
    assert "--seeds 0: should be greater" in refused(
        run("scripts/reproduce.py", "table1", "--seeds", "0", cwd=tmp_path)
    )
    assert "cub is not at" in refused(run("scripts/reproduce.py", "table1", "--dataset", "cub", cwd=tmp_path))
