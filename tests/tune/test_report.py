"""The report of a search, from real studies that took no time."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from colotride.presets import preset
from colotride.tune.build import build_space
from colotride.tune.findings import findings_of, saved
from colotride.tune.importance import importances
from colotride.tune.plots import library
from colotride.tune.points import finished_points, scaled
from colotride.tune.report import write_report
from colotride.tune.strands import strands
from colotride.tune.surface import surface
from colotride.tune.trials import TrialRow, best_first
from tests.tune.searches import EPOCHS, REASON, SPACE, end, score, search

PNGS = ["history.png", "front.png", "importance.png", "slices.png", "contour.png", "parallel.png", "epochs.png"]


def written(folder, study, rows, objectives=("ARS",), space=SPACE, **more):
    files = write_report(
        folder, title="a & <b>", study=study, rows=rows, space=space, objectives=objectives, epochs=EPOCHS, **more
    )
    return files, files[0].read_text().replace(library(), "")


def traces(page, name):
    """What plotly is given to draw in a figure of the page."""
    place = re.search(rf'Plotly\.newPlot\(\s*"plot-{name}",\s*', page)
    return json.JSONDecoder().raw_decode(page, place.end())[0]


def table(page, name):
    body = re.search(rf'<table id="{name}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL).group(1)
    cells = (re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL))
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in cells]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    study, rows = search()
    verdict = [{"model": "default", "ARS": "40.1"}, {"model": "best <i>", "ARS": "44.0"}]
    files, page = written(tmp_path_factory.mktemp("search"), study, rows, verdict=verdict)
    return study, rows, files, page


def test_the_files_are_the_page_and_a_picture_of_each_figure(one):
    _, _, files, _ = one
    assert files[0].name == "report.html"
    assert [file.name for file in files[1:]] == PNGS
    for file in files[1:]:
        assert file.parent.name == "figures"
        assert len(np.unique(np.asarray(Image.open(file).convert("L")))) > 20, "something is drawn"


def test_the_history_shows_what_the_finished_trials_reached_and_the_others_below_all_of_them(one):
    _, rows, _, page = one
    drawn = {trace["name"]: trace for trace in traces(page, "history")}
    finished = [score(row.values) for row in rows if row.status == "finished"]
    assert drawn["finished"]["y"] == pytest.approx(finished)
    for status in ("finished", "stopped", "collapsed", "error"):
        assert drawn[status]["x"] == [row.number for row in rows if row.status == status]
        assert status == "finished" or max(drawn[status]["y"]) < min(finished), "no score to compare with theirs"
    best = [max(finished[: count + 1]) for count in range(len(finished))]
    findings = findings_of(one[0], rows, SPACE, ["ARS"], EPOCHS)
    assert findings.best.scores["ARS"] == pytest.approx(best[-1])
    assert f"Best: trial {findings.best.number}," in page


def test_the_front_of_one_objective_is_that_of_accuracy_and_robustness(one):
    study, rows, _, page = one
    findings = findings_of(study, rows, SPACE, ["ARS"], EPOCHS)
    (panel,) = findings.panels()
    assert (panel.x, panel.y) == ("R@1", "ARS")
    chosen = [panel.places[position] for position in panel.front]
    for x, y in chosen:
        assert not any(a >= x and b >= y and (a, b) != (x, y) for a, b in panel.places)
    assert all(left[0] < right[0] and left[1] > right[1] for left, right in pairwise(chosen))
    assert len(chosen) < len(panel.places)
    assert next(trace for trace in traces(page, "front") if trace["name"] == "front")["x"] == [x for x, _ in chosen]


def test_importance_finds_the_parameters_on_which_the_score_depends(tmp_path):
    study, rows = search(160)
    ranked = importances(finished_points(study), SPACE, 0)
    assert {one.name for one in ranked[:2]} == {"attention_factor", "pgd_steps"}
    assert {one.name for one in ranked} == {parameter.name for parameter in SPACE.parameters}
    length = next(one for one in ranked if one.name == "ramp_length")
    having = sum(row.status == "finished" and row.values["ramp"] != "constant" for row in rows)
    assert length.trials == having < len(finished_points(study))
    _, page = written(tmp_path, study, rows)
    assert f"ramp_length rests on the {having} trials" in page
    (bars,) = traces(page, "importance")
    assert bars["y"] == [one.name for one in ranked]
    assert bars["x"] == [one.share for one in ranked]


def test_slices_and_contour_are_of_the_two_that_matter_most(one):
    study, rows, _, page = one
    first, second = findings_of(study, rows, SPACE, ["ARS"], EPOCHS).leaders
    finished = [row for row in rows if row.status == "finished"]
    left, right = traces(page, "slices")
    assert left["x"] == [row.values[first.name] for row in finished]
    assert right["x"] == [row.values[second.name] for row in finished]
    filled, dots = traces(page, "contour")
    assert filled["type"] == "contour"
    assert (dots["x"], dots["y"]) == (left["x"], right["x"])
    assert dots["marker"]["color"] == pytest.approx([score(row.values) for row in finished])


def test_the_surface_meets_a_plane_exactly_and_knows_nothing_outside():
    factor, steps = (one for one in SPACE.parameters if one.name in ("attention_factor", "pgd_steps"))
    study, _ = search(60)
    points = finished_points(study)
    plane = [2 * scaled(factor, p.values["attention_factor"]) - scaled(steps, p.values["pgd_steps"]) for p in points]
    found = surface(points, plane, factor, steps, size=25)
    places = np.linspace(0, 1, 25)
    known = ~np.isnan(found.z)
    assert 0.3 < known.mean() < 1
    assert found.z[known] == pytest.approx((2 * places[None, :] - places[:, None])[known])
    assert found.x[[0, -1]] == pytest.approx([0.5, 50])


def test_every_trial_is_a_line_across_all_axes(one):
    study, rows, _, page = one
    findings = findings_of(study, rows, SPACE, ["ARS"], EPOCHS)
    axes, made = strands(findings)
    assert [axis.name for axis in axes] == [*(one.name for one in SPACE.parameters), "ARS", "end"]
    assert sorted(one.row.number for one in made) == [row.number for row in rows]
    for one_strand in made:
        assert len(one_strand.places) == len(axes)
        without = [axis.name for axis, place in zip(axes, one_strand.places, strict=True) if place < 0]
        assert ("ramp_length" in without) == (one_strand.row.values["ramp"] == "constant")
        assert ("ARS" in without) == (one_strand.row.status != "finished")
        assert all(place <= 1 for place in one_strand.places)
    assert made[-1].row.number == findings.best.number, "the best is drawn on top"
    lines = [trace for trace in traces(page, "parallel") if trace["mode"] == "lines+markers"]
    assert [line["y"] for line in lines] == [one.places for one in made]


def test_epochs_saved_are_told_apart(one):
    _, rows, _, page = one
    shares = saved(rows, EPOCHS)
    count = {status: sum(row.status == status for row in rows) for status in ("stopped", "collapsed", "error")}
    assert shares.stopped == pytest.approx(count["stopped"] * 6 / (40 * 9))
    assert shares.lost == pytest.approx(count["collapsed"] * 7 / (40 * 9))
    assert shares.other == pytest.approx(count["error"] * 9 / (40 * 9))
    trained = sum(row.epoch for row in rows)
    assert shares.total == pytest.approx(1 - trained / (40 * 9))
    assert f"39 % of 360 epochs were not trained ({trained} were)" in page
    not_trained = next(trace for trace in traces(page, "epochs") if trace["name"] == "not trained")
    assert not_trained["y"] == [EPOCHS - row.epoch for row in rows]


def test_failed_and_collapsed_trials_stand_with_their_reasons(one):
    _, rows, _, page = one
    lost = [row for row in rows if row.status in ("collapsed", "error")]
    found = table(page, "lost")
    assert [int(row[0]) for row in found] == [row.number for row in lost]
    assert [row[1] for row in found] == [row.status for row in lost]
    assert REASON.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in [row[3] for row in found]
    assert "RuntimeError: out of memory" in [row[3] for row in found]


def test_the_tables_hold_every_trial_and_the_verdict(one):
    _, rows, _, page = one
    trials = table(page, "trials")
    assert [int(row[0]) for row in trials] == [row.number for row in rows]
    assert [row[-1] for row in trials] == [row.status for row in rows]
    assert trials[0][4] == str(rows[0].values["pgd_steps"])
    assert table(page, "verdict") == [["default", "40.1"], ["best &lt;i&gt;", "44.0"]]
    assert "a &amp; &lt;b&gt;" in page


def test_nothing_is_fetched_from_elsewhere(one):
    page = one[3]
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=(?!\"data:)", page)
    assert not re.search(r"https?://|@import|url\(", page)


def test_several_objectives_have_their_own_front_and_importance(tmp_path):
    names = ("ARS", "R@1", "ERS")
    study, rows = search(objectives=names)
    _, page = written(tmp_path, study, rows, names)
    panels = findings_of(study, rows, SPACE, names, EPOCHS).panels()
    assert [(panel.x, panel.y) for panel in panels] == [("ARS", "R@1"), ("ARS", "ERS"), ("R@1", "ERS")]
    for panel in panels:
        numbers = {panel.numbers[position] for position in panel.front}
        assert numbers == {trial.number + 1 for trial in study.best_trials}
    assert len(traces(page, "importance")) == 3
    best = best_first(rows, names)[0]
    assert f"Best: trial {best.number}, validation ARS {best.scores['ARS']:.1f}, validation R@1" in " ".join(
        page.split()
    )


def test_a_finished_trial_that_had_spent_its_allowance_was_not_stopped():
    row = TrialRow(1, {}, status="finished", epoch=6)
    assert saved([row], EPOCHS).spent == saved([row], EPOCHS).total == pytest.approx(1 / 3)


@pytest.mark.parametrize("trials", [1, 3, 4])
def test_too_few_finished_trials_are_said_instead_of_drawn(tmp_path, trials):
    study, rows = search(trials)
    files, page = written(tmp_path, study, rows)
    count = sum(row.status == "finished" for row in rows)
    assert f"No importance: {count} of {trials} trials reached their last epoch; this takes 4 or more." in page
    assert "No slices and no contour" in page
    assert {file.name for file in files[1:]} == {"history.png", "front.png", "parallel.png", "epochs.png"}


def test_a_search_in_which_everything_failed_still_has_its_report(tmp_path):
    study, _ = search(0)
    values = SPACE.suggest(study.ask())
    row = TrialRow(1, values)
    end(row, "nan", 1, [0.0], "loss nan")
    _, page = written(tmp_path, study, [row])
    assert page.count("No trial reached its last epoch.") == 2
    assert table(page, "lost") == [["1", "nan", "1", "loss nan"]]


def test_trials_that_scored_alike_make_no_parameter_important(tmp_path):
    study, rows = search(0)
    for number in range(5):
        trial = study.ask()
        row = TrialRow(number + 1, SPACE.suggest(trial))
        end(row, "finished", EPOCHS, [50.0])
        rows.append(row)
        study.tell(trial, 50.0)
    _, page = written(tmp_path, study, rows)
    assert "All finished trials scored alike" in page


def test_choices_that_matter_most_are_shown_trial_by_trial(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "replace: true\nparameters: {ramp: {}, training.miner: {values: [random, semi-hard]}}"
    )
    space = build_space(preset("digits"), file=tmp_path / "space.yaml")
    study, rows = search(0)
    for number in range(12):
        trial = study.ask()
        row = TrialRow(number + 1, space.suggest(trial))
        value = 10.0 * len(row.values["ramp"]) + len(row.values["miner"])
        end(row, "finished", EPOCHS, [value])
        rows.append(row)
        study.tell(trial, value)
    files, page = written(tmp_path / "report", study, rows, space=space)
    assert "contour.png" in [file.name for file in files]
    assert "One of the two is a choice" in page
    (dots,) = traces(page, "contour")
    assert set(dots["x"]) <= {"linear", "cosine", "constant"}
