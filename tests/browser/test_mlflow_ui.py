"""MLflow's own pages, clicked through in a real browser, on the record that a search leaves."""

import dataclasses
import itertools
import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from colotride.tracking.export import LOCAL_PAGES, Tracker
from colotride.tracking.names import DESCRIPTION_TAG, EXPERIMENT, page_of
from colotride.training.records import EpochRecord
from colotride.tune.callbacks import MLflowCallback
from colotride.tune.records import TrialRecord
from tests.browser.driver import browser
from tests.mlflow_servers import mlflow_server
from tests.tune.searches import search, small_plan

pytestmark = pytest.mark.slow

TRIALS = 8
THIS = "tags.search = 'digits-search'"
SCREENSHOT = os.environ.get("COLOTRIDE_SCREENSHOT")
"""Where the comparison is kept as a picture: COLOTRIDE_SCREENSHOT=docs/images/mlflow-compare.png."""


def recorded(directory, name="digits-search"):
    """Record a search of trials that end with different scores; returns the store, the trials and the address to compare them."""
    uri, plan = f"sqlite:///{directory}/mlflow.db", small_plan(trials=TRIALS)
    tracker = Tracker(uri, directory / name)
    callback = MLflowCallback(tracker, name, plan)
    records = []
    for number, one in enumerate(search(trials=TRIALS, space=plan.space), 1):
        record = TrialRecord(number, one.values, plan.space.configure(plan.base, one.values))
        callback.started(record)
        for epoch in (1, 2):
            ars = 20.0 + 4 * number + epoch
            scores = {"R@1": 90.0 - number, "mAP": 50.0, "ERS": ars + 2, "ARS": ars}
            done = EpochRecord(epoch, 8 * epoch, 1.0, {"loss": 0.1, "collapseness": -0.2}, scores, 1000)
            record = dataclasses.replace(record, history=(*record.history, done))
            callback.reported(record)
        record = record.with_end("stopped" if number == TRIALS else "finished")
        callback.ended(record)
        records.append(record)
    (directory / name / "report.html").write_text("<html></html>")
    callback.close(records[-2].scores, [directory / name / "report.html"], directory / name)
    return uri, records, tracker.page


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Store, trials, the address of a server that shows them, and that of the search's own runs; another search is there too."""
    directory = tmp_path_factory.mktemp("pages")
    recorded(directory, "digits-before")
    uri, records, page = recorded(directory)
    with mlflow_server(directory, uri) as address:
        yield uri, records, address, page.replace(LOCAL_PAGES, address)


def test_the_searchs_run_has_a_description_and_its_report(pages):
    uri, records, *_ = pages
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    (parent,) = client.search_runs([experiment.experiment_id], f"{THIS} and tags.kind = 'search'")
    assert f"Best trial: ARS {records[-2].scores['ARS']:.1f}" in parent.data.tags[DESCRIPTION_TAG]
    assert {"config.yaml", "report.html"} == {item.path for item in client.list_artifacts(parent.info.run_id)}
    for run in client.search_runs([experiment.experiment_id], f"{THIS} and tags.kind = 'trial'"):
        record = next(one for one in records if f"trial {one.number}" == run.info.run_name)
        assert set(run.data.params) == set(record.values), "only what was searched is a parameter of a trial"
        assert ("val/ARS" in run.data.metrics) == (record.status == "finished")


def rows(window, count):
    """Wait for as many rows, and return the names that they show."""
    window.wait(f"return document.querySelectorAll('.ag-center-cols-container .ag-row').length === {count}")
    return window.script("return document.body.innerText")


def test_the_address_that_a_search_prints_shows_its_own_runs(pages):
    uri, _, address, page = pages
    experiment = MlflowClient(uri).get_experiment_by_name(EXPERIMENT).experiment_id
    with browser() as window:
        window.open(page_of(address, experiment))
        assert "digits-before" in rows(window, 2 * (TRIALS + 1))
        window.open(page)
        assert "digits-before" not in rows(window, TRIALS + 1)


def test_compare_shows_the_searched_parameters_against_ars_without_overlaps(pages):
    _, records, _, page = pages
    with browser() as window:
        window.open(page)
        text = "return document.body.innerText"
        window.wait("return document.querySelectorAll('.ag-center-cols-container .ag-row').length > 8")
        for name in ("val/ARS", "val/ERS", "val/R_at_1"):
            window.wait(f"return document.body.innerText.includes('{name}')")
        assert f"{records[0].scores['ARS']:g}" in window.script(text)
        window.script(
            "for (const row of document.querySelectorAll('.ag-row'))"
            " if (/trial \\d/.test(row.innerText)) row.querySelector('.ag-selection-checkbox input')?.click()"
        )
        window.wait(
            "const found = [...document.querySelectorAll('button')].find(one => one.innerText.trim() === 'Compare');"
            "if (!found) return false; found.click(); return true"
        )
        window.wait("return document.querySelectorAll('.pcp-plot .axis-title').length > 0")
        window.wait("return document.body.innerText.includes('Comparing')")
        titles = window.script(
            "return [...document.querySelectorAll('.pcp-plot .axis-title')]"
            ".map(one => [one.innerHTML, one.getBoundingClientRect().left, one.getBoundingClientRect().right])"
        )
        if SCREENSHOT:
            window.screenshot(Path(SCREENSHOT))
        assert f"Comparing {TRIALS} Runs" in window.script(text)
    names = [name for name, _, _ in titles]
    assert names[-1] == "val_epoch/ARS"
    assert names[:-1] == sorted(records[0].values)[:3]
    for (_, _, end), (_, start, _) in itertools.pairwise(titles):
        assert end < start, f"labels overlap: {titles}"
