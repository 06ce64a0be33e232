"""The record, read back from real MLflow stores: SQLite files, and servers that are killed, late or dead."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from colotride.cli.main import execute
from colotride.config import load_config
from colotride.data.splits import load_splits
from colotride.errors import ConfigurationError
from colotride.presets import preset
from colotride.tracking.export import Tracker
from colotride.tracking.model_registry import is_on_this_machine, load_registered
from colotride.tracking.names import EXPERIMENT, flat_settings, metric_name, run_parameters
from colotride.tracking.runs import RunRecord
from colotride.training.records import EpochRecord, Outcome
from colotride.training.trainer import Trainer
from tests.commands import ROOT, environment
from tests.mlflow_servers import free_port, kill_server, start_server

pytestmark = pytest.mark.slow


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs(uri):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def curve(uri, run, name):
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, name)]


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
    flat = flat_settings(preset("cub"))
    assert flat["pgd.steps"] == "16"
    assert flat["collapseness.attention_factor"] == "10"
    assert flat["defense.name"] == "colo-tride"


def test_parameters_are_what_sets_a_run_apart():
    known = {"dataset": "cub", "defense": "colo-tride", "seed": "3"}
    config = preset("cub").with_values({"seed": 3, "data.root": "/elsewhere"})
    assert run_parameters(config) == known
    assert run_parameters(config.with_values({"pgd.steps": 4})) == {**known, "pgd.steps": "4"}
    natural = config.with_values({"defense": {"name": "natural"}})
    assert run_parameters(natural) == {**known, "defense": "natural"}


def test_a_run_with_a_child_its_curves_tags_files_and_data_set_come_back(uri, tmp_path):
    tracker = Tracker(uri, tmp_path / "search")
    dataset = {"name": "digits", "digest": "abc", "source": "data", "profile": {"image_size": 8}}
    tracker.start("search", "search", parameters={"trials": "2"}, tags={"kind": "search"}, dataset=dataset)
    tracker.start("one", "trial 1", parameters={"a": "1"}, tags={"kind": "trial"}, parent="search")
    for epoch, value in ((1, 20.0), (2, 30.0)):
        tracker.metrics("one", {"val_epoch/ARS": value, "train/loss": 1 / epoch}, epoch)
    (tmp_path / "best.yaml").write_text("x: 1\n")
    tracker.artifact("search", tmp_path / "best.yaml")
    tracker.artifact("search", tmp_path / "best.yaml", "figures")
    tracker.end("one", failed=True)
    tracker.end("search")
    assert tracker.close() == 0
    found = {run.info.run_name: run for run in runs(uri)}
    parent, child = found["search"], found["trial 1"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.info.status, parent.info.status) == ("FAILED", "FINISHED")
    assert child.data.params == {"a": "1"}
    assert child.data.tags["git_commit"]
    assert curve(uri, child, "val_epoch/ARS") == [(1, 20.0), (2, 30.0)]
    client = MlflowClient(uri)
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["best.yaml", "figures"]
    (used,) = parent.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "abc")


def test_an_address_that_is_none_is_one_line(tmp_path):
    with pytest.raises(ConfigurationError, match="tracking URI 'nowhere://x'"):
        Tracker("nowhere://x", tmp_path)


def test_a_store_out_of_reach_is_said_once_stops_nothing_and_gets_everything_later(tmp_path):
    said = []
    (tmp_path / "place").write_text("in the way")
    uri = f"sqlite:///{tmp_path}/place/mlflow.db"
    tracker = Tracker(uri, tmp_path / "run", warn=said.append)
    tracker.start("run", "run", parameters={"a": "1"}, tags={})
    tracker.metrics("run", {"a": 1.0}, 3)
    tracker.end("run")
    assert tracker.close(1.0) == 3
    assert len(said) == 2
    assert "out of reach" in said[0]
    assert "colotride sync" in said[1]
    assert not any("\n" in line for line in said)
    (tmp_path / "place").unlink()
    (tmp_path / "place").mkdir()
    assert execute("sync", [str(tmp_path / "run")]) == 0
    (run,) = runs(uri)
    assert curve(uri, run, "a") == [(3, 1.0)]
    assert run.info.status == "FINISHED"


def test_a_store_deleted_in_the_middle_gets_everything_again(uri, tmp_path):
    said = []
    tracker = Tracker(uri, tmp_path / "run", warn=said.append)
    tracker.start("run", "run", parameters={"a": "1"}, tags={})
    tracker.metrics("run", {"value": 1.0}, 1)
    wait_until(lambda: not tracker._delivery.waiting)
    (tmp_path / "mlflow.db").unlink()
    tracker.metrics("run", {"value": 2.0}, 2)
    tracker.end("run")
    assert tracker.close() == 0
    (run,) = runs(uri)
    assert run.data.params == {"a": "1"}
    assert curve(uri, run, "value") == [(1, 1.0), (2, 2.0)]
    assert [line for line in said if "everything is sent to it again" in line]
    (tmp_path / "mlflow.db").unlink()
    assert execute("sync", [str(tmp_path / "run")]) == 0, "also when it was deleted afterwards"
    (run,) = runs(uri)
    assert curve(uri, run, "value") == [(1, 1.0), (2, 2.0)]
    assert run.info.status == "FINISHED"


def test_what_mlflow_does_not_take_is_never_called_sent(uri, tmp_path, capsys):
    said = []
    tracker = Tracker(uri, tmp_path / "run", warn=said.append)
    tracker.start("run", "run", parameters={}, tags={})
    tracker.artifact("run", tmp_path / "missing.txt")
    tracker.metrics("run", {"value": 1.0}, 1)
    assert tracker.close() == 1
    assert [line for line in said if "missing.txt is not there any more" in line]
    for _ in range(2):
        assert execute("sync", [str(tmp_path / "run")]) == 1
        assert "1 entries are not in the store" in capsys.readouterr().out
    (tmp_path / "missing.txt").write_text("here again")
    assert execute("sync", [str(tmp_path / "run")]) == 0
    (run,) = runs(uri)
    assert curve(uri, run, "value") == [(1, 1.0)]
    assert [item.path for item in MlflowClient(uri).list_artifacts(run.info.run_id)] == ["missing.txt"]


def test_a_run_deleted_by_a_person_is_said_and_does_not_end_the_record(uri, tmp_path):
    said = []
    tracker = Tracker(uri, tmp_path / "run", warn=said.append)
    tracker.start("run", "run", parameters={}, tags={})
    wait_until(lambda: not tracker._delivery.waiting)
    (run,) = runs(uri)
    MlflowClient(uri).delete_run(run.info.run_id)
    tracker.metrics("run", {"value": 1.0}, 1)
    assert tracker.close() == 1
    assert [line for line in said if "does not take" in line]


def test_a_folder_without_a_record_cannot_be_sent(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no record"):
        execute("sync", [str(tmp_path)])


def test_a_resumed_run_is_continued_not_doubled(uri, tmp_path):
    config, folder = preset("digits"), tmp_path / "run"
    folder.mkdir()
    (folder / "evaluation.json").write_text("{}")
    epochs = [EpochRecord(n, 10 * n, 0.5, {"loss": 1.0 / n}, {"ARS": 10.0 * n, "R@1": 50.0}) for n in (1, 2)]
    first = RunRecord.open(folder, config, uri)
    first.epoch(epochs[0])
    first.end(Outcome("interrupted", "stopped", epochs[:1]))
    again = RunRecord.open(folder, config, None)
    again.epoch(epochs[0])
    again.epoch(epochs[1])
    again.end(Outcome("finished", "", epochs))
    (before,) = runs(uri)
    assert before.data.metrics["val/ARS"] == 20.0
    assert not [name for name in before.data.metrics if name.startswith("test/")]
    RunRecord.existing(folder).evaluation({"ARS": 33.0, "R@1": 90.0}, folder / "evaluation.json")
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "train"
    assert (run.data.metrics["val/ARS"], run.data.metrics["test/ARS"]) == (20.0, 33.0)
    assert run.data.metrics["test/R_at_1"] == 90.0
    assert "ARS" not in run.data.metrics, "validation and test never share a name"
    assert run.data.params == {"dataset": "digits", "defense": "colo-tride", "seed": "0"}
    kept = MlflowClient(uri).download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
    assert load_config(Path(kept)) == config
    assert curve(uri, run, "val_epoch/ARS") == [(1, 10.0), (2, 20.0)]
    assert len(run.inputs.dataset_inputs) == 1


def test_a_folder_that_was_never_tracked_has_no_record(tmp_path):
    assert RunRecord.existing(tmp_path) is None


WRITER = """
import sys
from pathlib import Path
from colotride.tracking.export import Tracker

tracker = Tracker(sys.argv[1], Path(sys.argv[2]))
tracker.start("run", "run", parameters={"a": "1"}, tags={})
print("ready", flush=True)
for step in range(100_000):
    tracker.metrics("run", {"value": float(step), "other": 1.0}, step)
"""


def test_a_writer_killed_at_any_moment_doubles_nothing_and_leaves_no_hole(uri, tmp_path):
    for delay in (0.0, 0.4, 1.5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, uri, str(tmp_path / "run")],
            cwd=ROOT,
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
        )
        writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    tracker = Tracker(uri, tmp_path / "run")
    kept = sum(1 for entry, _ in tracker._journal.read() if entry["do"] == "metrics")
    assert tracker.close(60.0) == 0
    (run,) = runs(uri)
    assert curve(uri, run, "value") == [(step, float(step)) for step in range(kept)]


def test_a_server_that_is_killed_and_comes_back_gets_everything_once(tmp_path):
    port = free_port()
    said = []
    server = start_server(tmp_path, port)
    tracker = Tracker(f"http://127.0.0.1:{port}", tmp_path / "run", warn=said.append)
    tracker.start("run", "run", parameters={}, tags={})
    for step in range(50):
        tracker.metrics("run", {"value": float(step)}, step)
    deadline = time.monotonic() + 60
    while tracker._delivery.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    kill_server(server)
    for step in range(50, 100):
        began = time.perf_counter()
        tracker.metrics("run", {"value": float(step)}, step)
        assert time.perf_counter() - began < 0.5, "training never waits for the store"
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    server = start_server(tmp_path, port)
    try:
        tracker.end("run")
        assert tracker.close(300.0) == 0
        (run,) = runs(f"sqlite:///{tmp_path}/server.db")
        assert curve(f"sqlite:///{tmp_path}/server.db", run, "value") == [(step, float(step)) for step in range(100)]
        assert len([line for line in said if "out of reach" in line]) == 1
    finally:
        kill_server(server)


def test_a_server_that_accepts_and_never_answers_holds_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        accepted = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(silent.accept()[0])

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        said = []
        tracker = Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "run", warn=said.append)
        began = time.perf_counter()
        tracker.start("run", "run", parameters={}, tags={})
        for step in range(1000):
            tracker.metrics("run", {"value": float(step)}, step)
        assert time.perf_counter() - began < 5
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
        assert tracker.close(0.1) == 1001
        assert "out of reach" in said[0]
        # The listener's own threads end with it; what they hold is closed here.
        silent.shutdown(socket.SHUT_RDWR)
        accepting.join(5)
        for connection in accepted:
            connection.close()


def test_a_registered_model_brings_its_signature_example_configuration_and_scores(uri, tmp_path):
    config = preset("digits").with_values(
        {"training.epochs": 1, "pgd.steps": 1, "data.pairs_per_batch": 8, "data.pairs_per_epoch": 16}
    )
    folder = tmp_path / "run"
    trainer = Trainer(config, load_splits(config.data).train, None, device=torch.device("cpu"), directory=folder)
    trainer.run()
    tracker = Tracker(uri, tmp_path / "search")
    tracker.start("winner", "winner", parameters={}, tags={})
    for _ in range(2):
        tracker.register("winner", folder, "colotride-digits", {"ARS": 31.25, "R@1": 90.0}, "Found by a search.")
    assert tracker.close(60.0) == 0
    client = MlflowClient(uri)
    (version,) = client.search_model_versions("name = 'colotride-digits'")
    assert version.description == "Found by a search."
    assert "digits" in client.get_registered_model("colotride-digits").description
    assert client.get_model_version_by_alias("colotride-digits", "champion").version == version.version
    assert version.tags == {"ARS": "31.25", "R_at_1": "90", "defense": "colo-tride", "dataset": "digits"}
    images = load_splits(config.data).test.pixels(torch.arange(4)).float() / 255
    model = load_registered("models:/colotride-digits/1", uri)
    with torch.no_grad():
        assert torch.equal(model(images), trainer.model.eval()(images))
    import mlflow

    info = mlflow.models.get_model_info("models:/colotride-digits/1")
    assert info.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    assert info.signature.outputs.inputs[0].shape == (-1, config.model.embedding_dim)
    loaded = mlflow.pyfunc.load_model("models:/colotride-digits/1")
    assert np.asarray(loaded.input_example).shape == (2, 1, 8, 8)
    (run,) = runs(uri)
    assert "config.yaml" in [item.path for item in client.list_artifacts(run.info.run_id)]
    tracker = Tracker(uri, tmp_path / "worse")
    tracker.start("winner", "winner", parameters={}, tags={})
    tracker.register("winner", folder, "colotride-digits", {"ARS": 31.0})
    assert tracker.close(60.0) == 0
    assert client.get_model_version_by_alias("colotride-digits", "champion").version == version.version


@pytest.mark.parametrize(
    ("store", "here"),
    [
        ("sqlite:///mlflow.db", True),
        ("mlruns", True),
        ("file:///srv/mlruns", True),
        ("http://127.0.0.1:5000", True),
        ("http://localhost", True),
        ("http://[::1]:5000", True),
        ("http://127.0.0.1.example.org", False),
        ("http://127.0.0.1@example.org", False),
        ("https://mlflow.example.org", False),
        ("file://host/mlruns", False),
        ("postgresql://db/mlflow", False),
        ("databricks", False),
        ("databricks://profile", False),
    ],
)
def test_pickles_are_loaded_unasked_only_from_a_store_on_this_machine(store, here):
    assert is_on_this_machine(store) == here


def test_the_machine_is_watched_under_mlflows_names(uri, tmp_path):
    from colotride.tracking.system_metrics import SystemMetrics

    samples = []
    system = SystemMetrics(samples.append, seconds=0.05)
    deadline = time.monotonic() + 10
    while not samples and time.monotonic() < deadline:
        time.sleep(0.02)
    system.stop()
    assert 0 <= samples[0]["system/cpu_utilization_percentage"] <= 100
    assert samples[0]["system/system_memory_usage_megabytes"] > 0


def test_a_view_is_saved_once_leads_to_its_runs_and_is_there_again_in_a_new_store(tmp_path, uri):
    """A later process goes on with the same journal; a store that was deleted gets the view again."""
    pages = []
    for _ in range(2):
        tracker = Tracker(uri, tmp_path / "search")
        tracker.start("search", "one", parameters={}, tags={"search": "same"})
        tracker.view("search", "Search one")
        tracker.close()
        pages.append(tracker.page)
    other = Tracker(uri, tmp_path / "other")
    other.start("search", "two", parameters={}, tags={"search": "same"})
    other.close()
    assert pages[0] == pages[1] != other.page
    key = pages[0].rpartition("=")[2]
    assert other.page.endswith("=scores")

    def saved():
        tags = MlflowClient(uri).get_experiment_by_name(EXPERIMENT).tags
        return json.loads(json.loads(tags[f"mlflow.sharedViewState.{key}"])["state"])["searchFilter"]

    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id], saved())
    assert [run.info.run_name for run in found] == ["one"]
    (tmp_path / "mlflow.db").unlink()
    Tracker(uri, tmp_path / "search").close()
    assert len(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id], saved())) == 1
    lines = (tmp_path / "search" / "mlflow" / "journal.jsonl").read_text()
    assert lines.count('"view"') == 2, "its kind and its key, in one entry"
