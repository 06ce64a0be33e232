"""The tables about photographs on the evidence page are those that the kept runs give."""

import json
import statistics

import pytest

from scripts.evidence import RESULTS, difference_table, load, score_table
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs/evidence.md").read_text()


def lines(text):
    return [
        line.replace(" ", "") for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")
    ]


@pytest.mark.parametrize("make", [score_table, difference_table])
def test_the_page_shows_what_the_kept_runs_give(make):
    shown = lines(PAGE)
    for line in lines(make(load())):
        assert line in shown


def test_a_difference_is_that_of_the_same_seeds():
    runs = load()
    for label in dict.fromkeys(run["label"] for run in runs):
        seeds = [run["seed"] for run in runs if run["label"] == label]
        assert len(set(seeds)) == len(seeds), label
    made = [
        {"label": label, "seed": seed, "scores": {"ARS": ars, "R@1": 50.0}}
        for label, values in (("COLO-TRIDE, relative distances", {0: 30, 1: 33, 7: 99}), ("ACT", {0: 20, 1: 21, 2: 0}))
        for seed, ars in values.items()
    ]
    made += [
        {"label": label, "seed": 0, "scores": {"ARS": ars, "R@1": 1.0}}
        for label, ars in (("COLO-TRIDE", 1.0), ("COLO-TRIDE, relative distances, longer", 2.0), ("ACT, longer", 3.0))
    ]
    text = difference_table(made).replace("\\", "")
    half = 12.706 * statistics.stdev([10, 12]) / 2**0.5
    assert f"| 2 | +11.0 [{11 - half:+.1f}, {11 + half:+.1f}] | +0.0" in text
    assert "| 1 | -1.0 |" in text


def test_what_is_kept_holds_no_paths_of_the_machine_that_made_it():
    text = RESULTS.read_text()
    assert "/work" not in text
    assert set(json.loads(text)) >= {"data", "network", "command", "machine", "runs"}
