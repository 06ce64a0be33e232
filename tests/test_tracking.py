"""The record, read back from a real MLflow store on SQLite."""

import pytest
from mlflow import MlflowClient

from colotride.presets import preset
from colotride.tracking import EXPERIMENT, RunRecord, Tracker, flat_parameters, metric_name
from colotride.training import EpochRecord, Outcome


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs(uri):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("R@1", "R_at_1"),
        ("mAP@R", "mAP_at_R"),
        ("CA+", "CA_plus"),
        ("QA-", "QA_minus"),
        ("ES:D", "ES_D"),
        ("ARS CA-", "ARS_CA_minus"),
        ("ERS", "ERS"),
    ],
)
def test_scores_are_spelled_so_that_mlflow_takes_them(name, spelled):
    assert metric_name(name) == spelled


def test_settings_are_flat_under_their_dotted_names():
    flat = flat_parameters(preset("cub"))
    assert flat["pgd.steps"] == "16"
    assert flat["collapseness.attention_factor"] == "10"
    assert flat["defense.name"] == "colo-tride"


def test_a_run_with_a_child_its_curves_tags_and_files_come_back(uri, tmp_path):
    tracker = Tracker(uri)
    parent = tracker.start("search", parameters={"trials": "2"}, tags={"kind": "search"})
    child = tracker.start("trial 1", parameters={"a": "1"}, tags={"kind": "trial"}, parent=parent)
    for epoch, value in ((1, 20.0), (2, 30.0)):
        tracker.metrics(child, {"validation/ARS": value, "train/loss": 1 / epoch}, epoch)
    (tmp_path / "best.yaml").write_text("x: 1\n")
    tracker.artifact(parent, tmp_path / "best.yaml")
    tracker.end(child, failed=True)
    tracker.end(parent)
    found = {run.info.run_name: run for run in runs(uri)}
    assert found["trial 1"].data.tags["mlflow.parentRunId"] == found["search"].info.run_id
    assert (found["trial 1"].info.status, found["search"].info.status) == ("FAILED", "FINISHED")
    assert found["trial 1"].data.params == {"a": "1"}
    client = MlflowClient(uri)
    curve = client.get_metric_history(child, "validation/ARS")
    assert [(point.step, point.value) for point in curve] == [(1, 20.0), (2, 30.0)]
    assert [item.path for item in client.list_artifacts(parent)] == ["best.yaml"]


def test_a_store_out_of_reach_is_said_once_and_stops_nothing(tmp_path):
    said = []
    (tmp_path / "file").write_text("in the way")
    tracker = Tracker(f"sqlite:///{tmp_path}/file/mlflow.db", warn=said.append)
    run = tracker.start("run", parameters={}, tags={})
    tracker.metrics(run, {"a": 1.0})
    tracker.end(run)
    assert run is None
    assert len(said) == 1
    assert "out of reach" in said[0]
    assert "\n" not in said[0]


def test_a_resumed_run_is_continued_not_doubled(uri, tmp_path):
    config, folder = preset("digits"), tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    epochs = [EpochRecord(n, 10 * n, 0.5, {"loss": 1.0 / n}, {"ARS": 10.0 * n}) for n in (1, 2)]
    first = RunRecord.open(folder, config, None if uri is None else uri)
    first.epoch(epochs[0])
    first.end(Outcome("interrupted", "stopped", epochs[:1]))
    again = RunRecord.open(folder, config, uri)
    again.epoch(epochs[1])
    again.end(Outcome("finished", "", epochs))
    RunRecord.existing(folder).evaluation({"ARS": 33.0, "R@1": 90.0}, folder / "config.yaml")
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/ARS"] == 33.0
    assert run.data.metrics["test/R_at_1"] == 90.0
    assert [p.value for p in MlflowClient(uri).get_metric_history(run.info.run_id, "validation/ARS")] == [10.0, 20.0]


def test_a_folder_that_was_never_tracked_has_no_record(tmp_path):
    assert RunRecord.existing(tmp_path) is None
