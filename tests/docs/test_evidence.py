"""The tables about photographs on the evidence page are those that the kept runs give."""

import json
import statistics

import pytest

import colotride as ct
from colotride.evaluation.results import save_evaluation
from colotride.tune.seed_statistics import paired_difference
from scripts.evidence import RESULTS, add, difference_table, draw, filled, load, recomputed, score_table, values_of
from tests.docs.blocks import ROOT
from tests.short_runs import SHORT

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


def test_only_the_tables_are_filled_in_again():
    assert filled(PAGE, load()) == PAGE
    less = filled(PAGE, load()[:3])
    assert len(lines(less)) < len(lines(PAGE))
    assert filled(less, load()) == PAGE


def test_a_difference_is_that_of_the_same_seeds():
    runs = load()
    for label in dict.fromkeys(run["label"] for run in runs):
        seeds = [run["seed"] for run in runs if run["label"] == label]
        assert len(set(seeds)) == len(seeds), label
    made = [
        {"label": label, "seed": seed, "scores": {"ARS": ars, "R@1": 50.0}}
        for label, values in (("Relative COLO-TRIDE", {0: 30, 1: 33, 7: 99}), ("ACT", {0: 20, 1: 21, 2: 0}))
        for seed, ars in values.items()
    ]
    made += [
        {"label": label, "seed": 0, "scores": {"ARS": ars, "R@1": 1.0}}
        for label, ars in (("COLO-TRIDE", 1.0), ("Relative COLO-TRIDE, longer", 2.0), ("ACT, longer", 3.0))
    ]
    text = difference_table(made).replace("\\", "")
    half = 12.706 * statistics.stdev([10, 12]) / 2**0.5
    assert f"| 2 | +11.0 [{11 - half:+.1f}, {11 + half:+.1f}] | +0.0" in text
    assert "| 1 | -1.0 |" in text


@pytest.mark.parametrize("run", [run for run in load() if values_of(run).exists()], ids=lambda run: values_of(run).stem)
def test_the_scores_of_a_kept_run_follow_from_the_values_of_its_images(run):
    found = recomputed(values_of(run))
    assert found == pytest.approx({name: run["scores"][name] for name in found}, abs=1e-3)


def test_every_kept_file_belongs_to_a_run():
    assert set((RESULTS.parent / RESULTS.stem).glob("*")) == {
        values_of(run) for run in load() if values_of(run).exists()
    }


@pytest.mark.slow
def test_a_run_is_taken_in_once(tmp_path):
    results = tmp_path / "kept.json"
    results.write_text(json.dumps({"runs": [{"label": "first", "seed": 0}, {"label": "mine", "seed": 0, "old": True}]}))
    config = ct.preset("digits").with_values({**SHORT, "pgd.steps": 1, "training.epochs": 2})
    run = ct.train(config, directory=tmp_path / "run")
    evaluated = ct.evaluate(run, queries=16, steps=2)
    save_evaluation(evaluated, tmp_path / "run" / "evaluation")
    add(tmp_path / "run", "mine", "--defense colo-tride", results=results)
    first, mine = load(results)
    assert first == {"label": "first", "seed": 0}
    assert mine["scores"]["ARS"] == pytest.approx(evaluated.ARS, abs=1e-3)
    assert len(mine["epochs"]) == 2
    assert mine["passes"] > 0
    add(tmp_path / "run", "between", "", parts=[tmp_path / "run", tmp_path / "run"], results=results)
    between = load(results)[-1]
    assert [between[name] for name in ("batches", "passes")] == [2 * mine[name] for name in ("batches", "passes")]
    assert between["epochs"] == []
    assert "| between | 1 |" in score_table([between])
    found = recomputed(values_of(mine, results))
    assert found == pytest.approx({name: evaluated.scores()[name] for name in found}, abs=1e-3)


def test_figures_are_drawn_from_the_kept_runs(tmp_path):
    drawn = draw(load(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "photographs-figure3.png",
        "photographs-figure4.png",
        "photographs-trade-off.png",
    ]
    assert all(path.stat().st_size > 10_000 for path in drawn)


def test_what_is_kept_holds_no_paths_of_the_machine_that_made_it():
    text = RESULTS.read_text()
    assert "/work" not in text
    assert set(json.loads(text)) >= {"data", "network", "command", "machine", "runs"}


def test_the_table_of_moved_and_averaged_weights_is_that_of_its_runs():
    runs = json.loads((RESULTS.parent / "weights-digits.json").read_text())["runs"]
    by_variant = {
        name: {score: {run["seed"]: run[score] for run in runs if run["variant"] == name} for score in ("R@1", "ARS")}
        for name in ("off", "AWP 0.001", "AWP 0.005", "EMA 0.99")
    }
    named = {"AWP": "weight perturbation", "EMA": "weight average"}
    for name, scores in by_variant.items():
        kind, _, value = name.partition(" ")
        cells = [f"{named[kind]} {value}" if value else "none"]
        cells += [f"{statistics.mean(by.values()):.1f} ± {statistics.stdev(by.values()):.1f}" for by in scores.values()]
        cells += [
            str(paired_difference(scores[one], by_variant["off"][one])) if value else "" for one in ("ARS", "R@1")
        ]
        assert f"| {' | '.join(cells)} |" in PAGE.replace("\\", "")
