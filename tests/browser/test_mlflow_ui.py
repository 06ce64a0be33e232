"""MLflow's own pages, in a real browser, on a record that a search would leave."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest
from colotride.tune.build import build_space
from colotride.tune.memory import Memory
from colotride.tune.record import SearchRecord
from mlflow import MlflowClient

from colotride.presets import preset
from colotride.tracking.delivery import EXPERIMENT
from colotride.tracking.export import Tracker
from colotride.tune.plan import Plan
from tests.browser.chromium import open_page

SCORES = {1: (91.5, 30.25), 2: (88.5, 41.75), 3: (76.5, 52.5)}
"""R@1 and ARS of three trials."""


def recorded(folder):
    """A search whose trials end with these scores; returns the store."""
    base = preset("digits")
    plan = Plan(base=base, space=build_space(base), trials=3, stopping="none")
    memory, uri = Memory(folder / "search", plan), f"sqlite:///{folder}/mlflow.db"
    record = SearchRecord(Tracker(uri, folder / "search"), "digits-search", plan)
    for number, (r1, ars) in SCORES.items():
        row = memory.draw()
        record.started(row)
        scores = {"R@1": r1, "mAP": 50.0, "ERS": ars + 2, "ARS": ars}
        for epoch in (1, 2):
            result = {
                **scores, "epoch": epoch, "status": "running" if epoch == 1 else "finished", "reason": "",
                "seconds": 1.0, "cost": float(epoch),
                "record": {"diagnostics": {"loss": 0.1}, "validation": scores, "step": epoch, "passes": 1000},
            }  # fmt: skip
            memory.report(number, result)
            record.reported(row, result)
        memory.settle(number)
        record.ended(row)
    record.close(scores, [], folder / "search")
    return uri


@pytest.fixture
def pages(tmp_path):
    """The store and the address of `mlflow ui` on it."""
    uri = recorded(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 90
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", port)) != 0:
                assert time.monotonic() < deadline, "the pages never came up"
                time.sleep(0.1)
        yield uri, f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def comparison(uri, address):
    """The page that opens when the trials are selected and Compare is pressed."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    trials = client.search_runs([experiment], "tags.kind = 'trial'")
    query = urllib.parse.urlencode(
        {"runs": json.dumps([run.info.run_id for run in trials]), "experiments": json.dumps([experiment])}
    )
    return f"{address}/#/compare-runs?{query}"


@pytest.mark.slow
def test_trials_are_compared_by_ers_and_ars_in_mlflows_own_pages(pages):
    page = open_page(comparison(*pages), milliseconds=30_000)
    text = re.sub(r"<[^>]+>", " ", page.html)
    for number, (r1, ars) in SCORES.items():
        assert f"trial {number}" in text
        for value in (r1, ars, ars + 2):
            assert f"{value:g}" in text
    for name in (
        "ERS",
        "ARS",
        "R_at_1",
        "collapseness.attention_factor",
        "pgd.steps",
        "Parallel Coordinates",
        "Scatter Plot",
    ):
        assert name in text
