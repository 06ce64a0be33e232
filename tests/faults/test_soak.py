"""The soak in its short form: a search whose driver, worker and server are killed and stopped once each."""

import json

import optuna
import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from colotride.tune.study import STUDY
from scripts.soak import KINDS, Soak, mlflow_faults, report_faults, study_faults
from tests.commands import run


@pytest.mark.slow
def test_a_search_that_is_disturbed_in_every_way_loses_and_doubles_nothing(tmp_path):
    asked = ("--trials", "8", "--disturbances", str(len(KINDS)), "--every", "5", "--directory", "soak", "--json")
    done = run("scripts/soak.py", *asked, cwd=tmp_path)
    log = tmp_path / "soak" / "search.log"
    assert done.returncode == 0, (done.stdout, done.stderr, log.exists() and log.read_text()[-2000:])
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert sum(found["statuses"].values()) == 8
    # A search that ends early on a fast machine is disturbed less.
    assert len(set(found["disturbances"])) == len(found["disturbances"]) > 1
    # More often where the machine is so busy that Ray takes its own node for dead.
    assert found["starts"] >= 1 + sum(kind in ("driver", "all processes") for kind in found["disturbances"])


def test_a_report_that_lacks_or_doubles_a_trial_is_found(tmp_path):
    assert report_faults(tmp_path, 4) == ["there is no report.html"]
    rows = "".join(f"<tr><td>{number}</td></tr>" for number in (1, 2, 2, 4))
    (tmp_path / "report.html").write_text(f'<table></table><table class="trials">{rows}</table>')
    assert report_faults(tmp_path, 4) == ["the report has trials [1, 2, 2]...[2, 2, 4] (4; doubled: [2])"]
    (tmp_path / "report.html").write_text(f'<table class="trials">{rows.replace("<td>2", "<td>3", 1)}</table>')
    assert report_faults(tmp_path, 4) == ["the report has trials [1, 3, 2]...[3, 2, 4] (4; doubled: none)"]


def test_a_study_that_lacks_a_trial_or_left_one_open_is_found(tmp_path):
    backend = JournalFileBackend(str(tmp_path / "optuna.journal"))
    study = optuna.create_study(study_name=STUDY, storage=JournalStorage(backend))
    study.tell(study.ask(), 1.0)
    study.ask()
    told = [
        {"number": number, "status": status, "epoch": 1, "curves": {"ARS": {"1": 9.0}}}
        for number, status in ((1, "finished"), (1, "error"))
    ]
    (tmp_path / "trials.json").write_text(json.dumps(told))
    found = Soak(3)
    assert study_faults(tmp_path, 3, found) == [
        "the study has trials [1, 2]...[1, 2] (2; doubled: none) instead of 1 to 3",
        "trial 2 of the study is open",
        "trials.json has trials [1, 1]...[1, 1] (2; doubled: [1])",
        "trial 1 finished with epochs ['1']",
    ]
    assert found.statuses == {"finished": 1, "error": 1}


@pytest.mark.slow
def test_runs_of_mlflow_that_are_missing_doubled_or_open_are_found(tmp_path):
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow_faults(store, 2) == ["MLflow has no experiment"]
    client = MlflowClient(store)
    experiment = client.create_experiment("colotride")
    for name, kind, steps in (("soak", "search", ()), ("trial 1", "trial", (1, 2)), ("trial 1", "trial", (1, 1))):
        run_id = client.create_run(experiment, run_name=name, tags={"kind": kind}).info.run_id
        for step in steps:
            client.log_metric(run_id, "train/loss", 0.5, step=step)
        if kind == "trial":
            client.set_terminated(run_id)
    assert sorted(mlflow_faults(store, 2)) == [
        "MLflow has 0 runs of trial 2",
        "MLflow has 2 runs of trial 1",
        "MLflow has epochs [1, 1] of trial 1",
        "MLflow says that soak is running",
    ]
