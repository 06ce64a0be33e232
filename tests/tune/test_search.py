"""The search as a user runs it, on the command line and in Python, with real Ray, Optuna and MLflow."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import optuna
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from colotride.cli.arguments import parse
from colotride.cli.configuration import run_config
from colotride.cli.main import execute
from colotride.cli.options.search import Search
from colotride.cli.search import _begun, _resumed
from colotride.config import load_config, questionable_settings
from colotride.errors import ColoTrideError, ModelError, SearchError
from colotride.presets import preset, with_quick_budget, with_reading
from colotride.tune import api
from colotride.tune.plan import load_plan, new_plan, save_plan
from tests.commands import ROOT, environment, refused, run
from tests.layouts import make_cub

QUICK = (
    "--run.training.epochs", "2", "--run.data.pairs-per-epoch", "96", "--run.validation.queries", "16",
    "--run.validation.steps", "2", "--run.evaluation.bootstrap", "50",
    "--run.evaluation.queries", "24", "--run.evaluation.steps", "2",
)  # fmt: skip


SEARCH = (
    "--dataset", "digits", "--trials", "8", "--race-seeds", "1", "--name", "first", "--deterministic", "--cpus-per-trial", "1",
    "--verdict-seeds", "1", "--gpus-per-trial", "auto", *QUICK,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search from its beginning to its end, and where it was."""
    place = tmp_path_factory.mktemp("finished")
    return run("tune/search.py", *SEARCH, cwd=place), place


def study_of(folder):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))
    return optuna.load_study(study_name="colotride", storage=storage)


def runs_of(place):
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    return client, client.search_runs([client.get_experiment_by_name("colotride").experiment_id])


def folder_of(place):
    return place / "runs/search/first"


def repeated_score(folder, number, seed):
    """The validation score of a repetition, from what its run wrote."""
    lines = (folder / f"race/{number:03d}/seed-{seed}/history.jsonl").read_text().splitlines()
    values = [json.loads(line)["validation"]["ARS"] for line in lines]
    return sum(values) / len(values)


@pytest.mark.slow
def test_a_search_on_digits_ends_with_the_comparison_and_is_on_record(finished):
    done, place = finished
    assert done.returncode == 0, done.stderr
    assert load_plan(folder_of(place)).concurrent, "how many ran at once is kept, for a resume on another machine"
    assert "A trial needs" in done.stdout, "what fits at once was measured"
    for words in ("Best configuration", "Verdict on the test classes", "default", "ARS", "make ui", "best.yaml"):
        assert words in done.stdout
    folder = folder_of(place)

    trials = json.loads((folder / "trials.json").read_text())
    assert [trial["number"] for trial in trials] == list(range(1, 9))
    assert trials[0]["values"]["attention_factor"] == 10, "the default comes first"
    assert all(trial["cost"] > 0 for trial in trials)
    first, second = sorted((t for t in trials if t["status"] == "finished"), key=lambda t: -t["scores"]["ARS"])[:2]
    raced = {
        trial["number"]: (trial["scores"]["ARS"] + repeated_score(folder, trial["number"], 1)) / 2
        for trial in (first, second)
    }
    best = trials[max(raced, key=raced.get) - 1]
    assert "Race of the best trials" in done.stdout
    assert f"{raced[best['number']]:.1f}" in (folder / "report.html").read_text().partition('id="race"')[2][:600]
    written = load_config(folder / "best.yaml")
    assert written.collapseness.attention_factor == pytest.approx(best["values"]["attention_factor"])
    assert not written.data.hold_out_validation
    assert (folder / "figures/verdict.png").read_bytes().startswith(b"\x89PNG")
    assert "parallel" in (folder / "report.html").read_text()

    states = {"finished": "COMPLETE", "stopped": "PRUNED", "collapsed": "PRUNED"}
    assert [trial.state.name for trial in study_of(folder).trials] == [states[trial["status"]] for trial in trials]

    client, runs = runs_of(place)
    (parent,) = (one for one in runs if one.data.tags["kind"] == "search")
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    kinds = [one.data.tags["kind"] for one in children]
    assert kinds.count("trial") == 8
    assert kinds.count("race") == 2
    assert kinds.count("verdict") == (1 if best["number"] == 1 else 2)
    trial = next(one for one in children if one.info.run_name == f"trial {best['number']}")
    assert trial.data.params["attention_factor"] == f"{best['values']['attention_factor']:.6g}"
    assert trial.data.metrics["val/ARS"] == pytest.approx(best["scores"]["ARS"])
    curves = ("train/loss", "train/hardness", "train/collapseness", "train/separability", "train/assist")
    for name in (*curves, "val_epoch/R_at_1", "val_epoch/ERS", "val_epoch/ARS"):
        assert [point.step for point in client.get_metric_history(trial.info.run_id, name)] == [1, 2], name
    verdict = next(one for one in children if one.info.run_name == "verdict: default seed 0")
    told = json.loads((folder / "verdict/default/seed-0/evaluation/evaluation.json").read_text())
    assert verdict.data.metrics["test/ARS"] == pytest.approx(told["ARS"])
    kept = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "trials.json", "search.json", "report.html", "figures"} <= kept

    again = run(
        "scripts/train.py", "--config", str(folder / "best.yaml"), "--directory", "best", "--no-track", cwd=place
    )
    assert again.returncode == 0, again.stderr


def until(place, condition, process):
    """Wait until the study of a running search meets a condition."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(KeyError, OSError, ValueError):
            if condition(study_of(place / "runs/search/first").trials):
                return
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"the search never came so far: {process.communicate()}")


def started(place, *arguments):
    command = [sys.executable, str(ROOT / "tune/search.py"), *arguments]
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_search_that_is_interrupted_and_then_killed_ends_as_if_nothing_had_been(finished, tmp_path):
    _, undisturbed = finished
    first = started(tmp_path, *SEARCH)
    until(tmp_path, lambda trials: any(trial.user_attrs.get("epoch") == 1 for trial in trials), first)
    first.send_signal(signal.SIGINT)
    told, _ = first.communicate(timeout=120)
    assert first.returncode == 130
    assert "colotride search --results runs/search --resume first" in told
    # Every choice of the first call stays: a deterministic search, one seed.
    resume = ("--resume", "first")
    second = started(tmp_path, *resume)
    until(tmp_path, lambda trials: len(trials) > 2 and trials[2].user_attrs.get("epoch") == 1, second)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    assert not (tmp_path / "runs/search/first/best.yaml").exists(), "killed too late to show anything"
    third = run("tune/search.py", *resume, cwd=tmp_path)
    assert third.returncode == 0, third.stderr

    def facts(place):
        trials = json.loads((place / "runs/search/first/trials.json").read_text())
        return [{name: trial[name] for name in trial if name != "seconds"} for trial in trials]

    for resumed, expected in zip(facts(tmp_path), facts(undisturbed), strict=True):
        for name, value in expected.items():
            assert resumed[name] == value, (expected["number"], name)
    # Every run of MLflow once, although the driver was started three times.
    names = [sorted(one.info.run_name for one in runs_of(place)[1]) for place in (tmp_path, undisturbed)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_a_search_for_two_objectives_runs_on_a_small_folder_in_cubs_layout(tmp_path):
    make_cub(tmp_path / "photos", classes=10, images_per_class=6, size=40)
    done = run(
        "tune/search.py", "--dataset", "cub", "--data-root", "photos", "--trials", "2", "--json", *QUICK,
        "--objective", "r1,ars", "--sampler", "nsga2", "--verdict-seeds", "1", "--max-cost", "1000",
        "--run.model.architecture", "two-convolutions", "--run.model.weights", "none", "--run.data.stored-size", "36", "--run.data.image-size", "32",
        "--run.data.pairs-per-batch", "6", "--run.pgd.steps", "2", "--run.training.learning-rate", "1e-4",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["best"]["status"] == "finished"
    assert result["best"]["number"] in result["front"]
    assert len(result["verdict"]["default"]["scores"]["ARS"]) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--trials", "0"], "--trials 0: should be greater"),
        (["--verdict-seeds", "0"], "--verdict-seeds 0: should be greater"),
        (["--objective", "accuracy"], "there is no objective 'accuracy'"),
        (["--objective", "r1,ars", "--stopping", "asha"], "stopping by asha compares one number"),
        (["--max-cost", "-1"], "--max-cost -1: should be greater than 0"),
        (["--resume", "nowhere", "--sampler", "gp"], "--sampler cannot change in a search that was begun"),
        (["--resume", "nowhere", "--run.seed", "3"], "--run cannot change in a search that was begun"),
        (["--resume", "nowhere"], "there is no search in runs/search/nowhere to resume"),
        (["--groups", "margin"], "did you mean"),
        (["--workers-per-trial", "0"], "--workers-per-trial 0: should be greater"),
        (["--dataset", "birds"], "no data set 'birds'"),
        (["--defense", "natural"], "the space is empty"),
        (["--name", "taken"], "exists already"),
        (["--concurrent", "0"], "--concurrent 0: should be greater"),
        (["--cpus-per-trial", "999"], "--cpus-per-trial 999 is more than any machine here has"),
        (["--gpus-per-trial", "99"], "--gpus-per-trial 99 is more than any machine here has"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial 0: should be greater"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/search/taken").mkdir(parents=True)
    (tmp_path / "runs/search/taken/search.json").touch()
    with pytest.raises(ColoTrideError, match=complaint) as error:
        execute("search", arguments)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == [
        tmp_path / path for path in ("runs", "runs/search", "runs/search/taken", "runs/search/taken/search.json")
    ]


@pytest.mark.slow
def test_a_data_set_that_is_not_there_is_one_line_and_exit_2(tmp_path):
    assert "cub is not at" in refused(run("tune/search.py", "--dataset", "cub", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_is_resumed_keeps_every_choice_that_is_not_given_again(tmp_path):
    words = (
        "--name", "first", "--results", str(tmp_path), "--trials", "5", "--no-verdict", "--top", "2", "--concurrent", "1",
        "--cpus-per-trial", "2", "--tracking-uri", "sqlite:///elsewhere.db", "--storage", "file:///copies",
    )  # fmt: skip
    plan, folder = _begun(parse(Search, words))
    save_plan(plan, folder)
    assert not plan.verdict
    again, place = _resumed(parse(Search, ("--resume", "first", "--results", str(tmp_path))))
    assert (again, place) == (plan, folder)
    more, _ = _resumed(parse(Search, ("--resume", "first", "--results", str(tmp_path), "--trials", "7")))
    assert (more.trials, more.verdict, more.top) == (7, False, 2)
    elsewhere = ("--resume", "first", "--results", str(tmp_path), "--tracking-uri", "sqlite:///new.db")
    with pytest.raises(SearchError, match="--tracking-uri cannot change"):
        _resumed(parse(Search, elsewhere))
    assert plan.command == "colotride search --trials 5 --no-verdict --top 2 " + plan.command.partition("--top 2 ")[2]
    assert _begun(parse(Search, [*shlex.split(plan.command)[2:], "--name", "second"]))[0].trials == 5


@pytest.mark.slow
def test_a_search_in_python_reads_no_test_class_when_it_is_told_not_to(tmp_path):
    found = api.search(
        "digits", 2, reading="released", quick=True, overrides={"training.epochs": 1, "data.pairs_per_epoch": 64},
        directory=tmp_path / "a search", verdict=False, quiet=True, concurrent=1,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", storage=f"file://{tmp_path}/copies",
    )  # fmt: skip
    base = with_quick_budget(with_reading(preset("digits"), "released"))
    run = found.plan.base
    assert (run.collapseness, run.defense, run.pgd) == (base.collapseness, base.defense, base.pgd)
    assert run.data.pairs_per_batch == base.data.pairs_per_batch < preset("digits").data.pairs_per_batch
    assert [trial.number for trial in found.trials] == [1, 2]
    assert found.best == found.ranked[0].values
    frame = found.to_frame()
    assert list(frame.index) == [1, 2]
    assert frame.loc[found.best_trial.number, "ARS"] == frame["ARS"].max()
    assert found.report.is_file()
    assert not (found.directory / "verdict").exists()
    assert load_config(found.directory / "best.yaml").pgd == found.best_trial.config.pgd
    trained = [path.relative_to(found.directory) for path in found.directory.rglob("checkpoints")]
    assert len(trained) == 2
    for place in trained:
        assert list((tmp_path / "copies" / "a search" / place).iterdir()), "everything is kept twice"

    # As if the driver had been killed between the end of the first trial and the word to MLflow.
    journal = found.directory / "mlflow" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    ending = ('"do": "end"', '"do": "tags"', '"val/ARS"')
    kept = [line for line in lines if '"trial/1"' not in line or not any(word in line for word in ending)]
    assert len(kept) < len(lines)
    journal.write_text("".join(kept))
    (tmp_path / "mlflow.db").unlink()
    for _ in range(2):
        assert api.execute(found.plan, found.directory, Console(quiet=True)).complete
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        experiment = client.get_experiment_by_name("colotride").experiment_id
        (first,) = client.search_runs([experiment], "attributes.run_name = 'trial 1'")
        assert (first.info.status, first.data.tags["status"]) == ("FINISHED", "finished")
        assert first.data.metrics["val/ARS"] == pytest.approx(found.trials[0].scores["ARS"])
    assert journal.read_text().count('"run": "trial/1", "do": "end"') == 1, "told once"


def test_weights_that_are_not_there_are_missed_before_the_first_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    plan = new_plan(preset("digits").with_values({"model.architecture": "resnet18", "model.weights": "imagenet"}))
    with pytest.raises(ModelError, match=r"start from random weights with --run\.model\.weights none"):
        api.prepare(plan, Console(quiet=True))
    assert list((tmp_path / "work").iterdir()) == []


def test_random_weights_with_the_settings_of_fine_tuning_are_warned_about():
    photographs = preset("cub").with_values({"model.weights": "none"})
    rate, batchnorm = questionable_settings(photographs)
    assert "learning rate of fine-tuning, 1e-05; try --run.training.learning-rate 1e-3" in rate
    assert "--run.model.no-freeze-batchnorm" in batchnorm
    meant = parse(Search, ("--dataset", "cub", "--run.model.weights", "none", "--run.model.no-freeze-batchnorm",
                           "--run.training.learning-rate", "1e-3"))  # fmt: skip
    assert questionable_settings(run_config(meant)) == [], "the remedies exist"
    assert questionable_settings(preset("cub")) == questionable_settings(preset("digits")) == []


@pytest.mark.slow
def test_a_search_that_is_terminated_ends_as_with_ctrl_c_and_leaves_no_process(tmp_path):
    first = started(tmp_path, *SEARCH, "--run.training.epochs", "40")
    until(tmp_path, lambda trials: any(trial.user_attrs.get("epoch") == 1 for trial in trials), first)
    second = run("search", "--resume", "first", cwd=tmp_path)
    assert f"in use by another process (process {first.pid} " in refused(second)
    first.send_signal(signal.SIGTERM)
    told, complained = first.communicate(timeout=120)
    assert first.returncode == 143
    assert "colotride search --results runs/search --resume first" in told
    assert "Traceback" not in complained
    deadline = time.monotonic() + 30
    while session(first.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not session(first.pid)


def session(leader):
    """The processes of a session."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid="], capture_output=True, text=True, check=True).stdout
    return [pid for pid, group in map(str.split, listed.splitlines()) if int(group) == leader]
