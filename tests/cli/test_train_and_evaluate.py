"""scripts/train.py and scripts/evaluate.py as a user runs them."""

import json
import signal
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from colotride.cli.main import execute
from colotride.errors import ColoTrideError
from colotride.training.checkpoint import WEIGHTS, checkpoints_in
from tests.commands import ROOT, environment, refused, run

SMALL = ("--run.training.epochs", "3", "--run.pgd.steps", "2")


def newest_weights(folder):
    return load_file(checkpoints_in(folder / "checkpoints")[0] / WEIGHTS)


@pytest.mark.slow
def test_a_run_is_trained_evaluated_and_recorded(tmp_path):
    trained = run("scripts/train.py", *SMALL, "--run.data.hold-out-validation", "--directory", "first", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "epoch   3" in trained.stderr
    assert "ARS" in trained.stderr
    folder = tmp_path / "first"
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3

    asked = ("--model", "first", "--queries", "40", "--steps", "2")
    told = run("scripts/evaluate.py", *asked, "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert (result["queries"], result["images"], result["protocol"]) == (40, 714, "strict")
    assert json.loads((folder / "evaluation" / "evaluation.json").read_text())["ARS"] == result["ARS"]
    shown = run("scripts/evaluate.py", *asked, cwd=tmp_path)
    assert f"{result['ARS']:.1f}" in shown.stdout

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("colotride")
    (recorded,) = client.search_runs([experiment.experiment_id])
    assert recorded.data.metrics["test/ARS"] == pytest.approx(result["ARS"])
    assert recorded.data.tags["status"] == "finished"
    assert len(client.get_metric_history(recorded.info.run_id, "val_epoch/ARS")) == 3
    assert len(client.get_metric_history(recorded.info.run_id, "train/collapseness")) == 3


@pytest.mark.slow
def test_a_run_that_was_told_to_end_resumes_to_the_same_weights(tmp_path):
    long = ("--run.training.epochs", "8", "--run.pgd.steps", "4", "--no-track")
    whole = run("scripts/train.py", *long, "--directory", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, str(ROOT / "scripts/train.py"), *long, "--directory", "cut"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "Continue with: colotride train --config cut/config.yaml --directory cut" in said
    again = run("scripts/train.py", "--config", "cut/config.yaml", "--directory", "cut", "--no-track", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "Resuming cut" in again.stderr
    expected, got = newest_weights(tmp_path / "whole"), newest_weights(tmp_path / "cut")
    assert all((expected[name] == got[name]).all() for name in expected)


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_2(tmp_path):
    assert "cub is not at" in refused(run("scripts/train.py", "--preset", "cub", "--data-root", "none", cwd=tmp_path))
    assert "--dataset is missing" in refused(run("scripts/evaluate.py", "--model", "nothing", cwd=tmp_path))
    nothing = ("--model", "nothing", "--dataset", "digits")
    assert "is not there" in refused(run("scripts/evaluate.py", *nothing, cwd=tmp_path))
    assert "--model is missing" in refused(run("scripts/evaluate.py", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--storage", "nowhere://x"], "--storage nowhere://x: should be s3://BUCKET/PATH"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ColoTrideError, match=line):
        execute("train", arguments)
    assert list(tmp_path.iterdir()) == []
