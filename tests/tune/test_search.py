"""tune/search.py as a user runs it, with real Ray, Optuna and MLflow."""

import json

import optuna
import pytest
from mlflow import MlflowClient

from colotride.config import load_config
from colotride.errors import ColoTrideError
from tests.commands import refused, run
from tests.layouts import make_cub
from tune import search

QUICK = (
    "--run.optimisation.epochs", "2", "--run.validation.queries", "16", "--run.validation.steps", "2",
    "--run.evaluation.queries", "24", "--run.evaluation.steps", "2",
)  # fmt: skip


@pytest.mark.slow
def test_a_search_on_digits_ends_with_the_comparison_and_is_on_record(tmp_path):
    done = run("tune/search.py", "--dataset", "digits", "--trials", "3", "--name", "first", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("Best configuration", "Verdict on the test classes", "default", "ARS", "make ui", "best.yaml"):
        assert words in done.stdout
    folder = tmp_path / "runs/search/first"

    trials = json.loads((folder / "trials.json").read_text())
    assert [trial["number"] for trial in trials] == [1, 2, 3]
    assert trials[0]["values"]["attention_factor"] == 10, "the default comes first"
    best = max((t for t in trials if t["status"] == "finished"), key=lambda t: t["scores"]["ARS"])
    written = load_config(folder / "best.yaml")
    assert written.collapseness.attention_factor == pytest.approx(best["values"]["attention_factor"])
    assert not written.data.hold_out_validation
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.load_study(study_name="colotride", storage=storage)
    states = {"finished": "COMPLETE", "stopped": "PRUNED", "collapsed": "PRUNED"}
    assert [trial.state.name for trial in study.trials] == [states[trial["status"]] for trial in trials]

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("colotride").experiment_id])
    (parent,) = (one for one in runs if one.data.tags["kind"] == "search")
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    kinds = [one.data.tags["kind"] for one in children]
    assert kinds.count("trial") == 3
    assert kinds.count("verdict") == (1 if best["number"] == 1 else 2)
    trial = next(one for one in children if one.info.run_name == f"trial {best['number']}")
    assert trial.data.params["attention_factor"] == f"{best['values']['attention_factor']:.6g}"
    assert trial.data.metrics["ARS"] == pytest.approx(best["scores"]["ARS"])
    curves = ("train/loss", "train/hardness", "train/collapseness", "train/separability", "train/assist")
    for name in (*curves, "validation/R_at_1", "validation/ERS", "validation/ARS"):
        assert [point.step for point in client.get_metric_history(trial.info.run_id, name)] == [1, 2], name
    verdict = next(one for one in children if one.info.run_name == "verdict: default")
    told = json.loads((folder / "verdict/default/evaluation/evaluation.json").read_text())
    assert verdict.data.metrics["test/ARS"] == pytest.approx(told["ARS"])
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {
        "best.yaml",
        "trials.json",
        "search.png",
    }

    again = run(
        "scripts/train.py", "--config", str(folder / "best.yaml"), "--directory", "best", "--no-track", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_search_runs_on_a_small_folder_in_cubs_layout(tmp_path):
    make_cub(tmp_path / "photos", classes=10, images_per_class=6, size=40)
    done = run(
        "tune/search.py", "--dataset", "cub", "--data-root", "photos", "--trials", "2", "--json", *QUICK,
        "--run.model.weights", "none", "--run.data.stored-size", "36", "--run.data.image-size", "32",
        "--run.data.pairs-per-batch", "6", "--run.pgd.steps", "2", "--run.optimisation.learning-rate", "1e-4",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["best"]["status"] == "finished"
    assert result["verdict"]["default"]["images"] == 30, "the second half of the classes is the test side"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--trials", "0"], "--trials 0 tries nothing"),
        (["--dataset", "birds"], "no preset 'birds'"),
        (["--defense", "natural"], "does not have"),
        (["--name", "taken"], "exists already"),
        (["--run.pgd.steps", "100"], "lies outside the space"),
        (["--concurrent", "0"], "--concurrent 0 runs no trial"),
        (["--cpus-per-trial", "999"], "--cpus-per-trial 999 is more than any machine here has"),
        (["--gpus-per-trial", "99"], "--gpus-per-trial 99 is more than any machine here has"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial 0 is too few"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/search/taken").mkdir(parents=True)
    with pytest.raises(ColoTrideError, match=complaint) as error:
        search.main(arguments)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / path for path in ("runs", "runs/search", "runs/search/taken")]


def test_a_data_set_that_is_not_there_is_one_line_and_exit_2(tmp_path):
    assert "cub is not at" in refused(run("tune/search.py", "--dataset", "cub", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []
