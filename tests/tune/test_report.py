"""The report of a search, from records of searches that took no time."""

import base64
import json
import re

import numpy as np
import optuna
import pytest
from PIL import Image

from colotride.tune.charts import charts_of, importances_of, study_of
from colotride.tune.importance import SearchedScaleFanova
from colotride.tune.page_charts import library
from colotride.tune.race import Contender
from colotride.tune.records import TrialRecord, best_first, pareto_front
from colotride.tune.report import saved_epochs, write_report
from colotride.tune.space import build_space
from tests.tune.searches import BASE, EPOCHS, REASON, SPACE, end, plan_of, score, search

pytestmark = pytest.mark.slow

PICTURES = ["history", "curves", "front", "importance", "slices", "contour", "parallel", "epochs"]


def written(folder, records, **changes):
    files = write_report(folder / "a & <b>", plan_of(**changes), records, mlflow_link="http://127.0.0.1:5000")
    return files, files[0].read_text().replace(library(), "")


def traces(page, name):
    """What plotly is given to draw in a chart of the page."""
    place = re.search(rf'Plotly\.newPlot\(\s*"plot-{name}",\s*', page)
    return json.JSONDecoder().raw_decode(page, place.end())[0]


def numbers(values):
    """What plotly writes as an array, plain or packed."""
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]) if "bdata" in values else values


def table(page, name):
    bodies = re.findall(rf'<table (?:id|class)="{name}".*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", "".join(bodies), re.DOTALL)
    cells = (re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in rows)
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in cells]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    records = search()
    return records, *written(tmp_path_factory.mktemp("search"), records, command="colotride search --trials 40")


def test_the_files_are_the_page_and_a_picture_of_each_chart(one):
    _, files, _ = one
    assert files[0].name == "report.html"
    assert [file.stem for file in files[1:]] == PICTURES
    for file in files[1:]:
        assert len(np.unique(np.asarray(Image.open(file).convert("L")))) > 20, "something is drawn"


def test_the_head_says_what_was_searched_how_and_with_which_command(one):
    records, _, page = one
    head = " ".join(re.sub(r"<.*?>", " ", page[page.index('<dl id="head">') : page.index("</dl>")]).split())
    for words in ("digits", "colo-tride", "40 trials of 9 epochs", "tpe sampler with seed 0", "asha", "maximises ARS"):
        assert words in head
    assert "colotride search --trials 40" in head
    assert f"used: {sum(record.epoch for record in records)} epochs" in head
    assert '<a href="http://127.0.0.1:5000">' in page


def test_the_settings_of_the_best_stand_beside_the_default(one):
    records, _, page = one
    best = best_first(records, ["ARS"])[0]
    rows = {row[0]: row[1:3] for row in table(page, "settings")}
    assert list(rows) == [parameter.name for parameter in SPACE.parameters]
    assert rows["pgd_steps"] == [str(BASE.pgd.steps), str(best.values["pgd_steps"])]
    assert rows["attention_factor"] == ["10", f"{best.values['attention_factor']:.3g}"]


def test_a_stopped_trials_score_is_in_brackets_and_in_no_ranking(one):
    records, _, page = one
    best = best_first(records, ["ARS"])[0]
    assert max(record.scores["ARS"] for record in records if record.status == "stopped") > best.scores["ARS"]
    ars = len(SPACE.parameters) + 5
    for row, record in zip(table(page, "trials"), records, strict=True):
        assert row[1] == record.status
        if record.scores:
            text = f"{record.scores['ARS']:.1f}"
            assert row[ars] == (text if record.status == "finished" else f"({text})")
    history = traces(page, "history")
    drawn = [value for trace in history for value in numbers(trace["y"]) if value is not None]
    assert max(drawn) == best.scores["ARS"]


def test_the_best_is_who_won_the_race(tmp_path):
    records = search()
    first, second = best_first(records, ["ARS"])[:2]
    contenders = [Contender(second, {0: 50.0, 1: 52.0}), Contender(first, {0: 51.0, 1: 40.0})]
    page = write_report(tmp_path, plan_of(), records, contenders=contenders)[0].read_text()
    assert f"Trial {second.number}: validation" in page
    assert table(page, "race") == [
        [str(second.number), "50.0", "52.0", "51.0"],
        [str(first.number), "51.0", "40.0", "45.5"],
    ]


def test_more_than_a_hundred_trials_are_folded_and_all_there(tmp_path):
    page = written(tmp_path, search(trials=230))[1]
    assert re.findall(r"<summary>(.*?)</summary>", page) == [
        "Trials 1 to 100", "Trials 101 to 200", "Trials 201 to 230",
    ]  # fmt: skip
    assert page.count("<details open>") == 1
    assert [int(row[0]) for row in table(page, "trials")] == list(range(1, 231))


def test_the_history_numbers_the_trials_as_the_table_does(one):
    records, _, page = one
    finished = [record for record in records if record.status == "finished"]
    drawn = traces(page, "history")[0]
    assert list(numbers(drawn["x"])) == [record.number for record in finished]
    assert numbers(drawn["y"]) == pytest.approx([score(record.values) for record in finished])


def test_the_front_of_one_objective_is_that_of_accuracy_and_robustness(one):
    records, _, page = one
    front = {(record.scores["R@1"], record.scores["ARS"]) for record in pareto_front(records, ["R@1", "ARS"])}
    best = traces(page, "front")[1]
    assert set(zip(numbers(best["x"]), numbers(best["y"]), strict=True)) == front
    assert len(front) < sum(record.status == "finished" for record in records)


def test_importances_share_one_fit_and_add_up_to_1(tmp_path):
    records = search(160)
    found = importances_of(study_of(records, SPACE, ["ARS"]))
    assert set(found.leaders) == {"attention_factor", "pgd_steps"}
    assert found.shares.keys() == {parameter.name for parameter in SPACE.parameters}
    assert sum(found.shares.values()) == pytest.approx(1)
    having = sum(record.status == "finished" and record.values["ramp"] != "constant" for record in records)
    _, page = written(tmp_path, records)
    assert f"ramp_length applies to {having} of these trials" in page
    (bars,) = traces(page, "importance")
    assert dict(zip(bars["y"], numbers(bars["x"]), strict=True)) == pytest.approx(found.shares)


def test_importance_is_measured_on_the_scale_that_is_searched():
    """A score that is linear in log λ leaves, on the linear scale, almost all variance to the smallest tenth."""
    space = build_space(BASE)
    records = search(
        120, space=space, value_of=lambda values: 10 * np.log(values["attention_factor"]) + 3 * values["pgd_steps"] ** 0
    )
    study = study_of(records, space, ["ARS"])
    names = ["attention_factor", "pgd_steps", "assist_disabled_fraction"]
    shares = SearchedScaleFanova().evaluate(study, names)
    assert shares["attention_factor"] > 0.9


def test_a_parameter_that_never_matters_gains_nothing_from_being_missing():
    records = search(160)
    shares = importances_of(study_of(records, SPACE, ["ARS"])).shares
    assert shares["ramp_length"] < 0.1


def test_slices_and_contour_are_of_the_two_that_matter_most(one):
    records, _, page = one
    first, second = sorted(importances_of(study_of(records, SPACE, ["ARS"])).leaders)
    finished = [record for record in records if record.status == "finished"]
    drawn = traces(page, "slices")
    assert list(numbers(drawn[0]["x"])) == [record.values[first] for record in finished]
    assert list(numbers(drawn[1]["x"])) == [record.values[second] for record in finished]
    assert traces(page, "contour")[0]["type"] == "contour"


def test_parallel_coordinates_have_an_axis_for_everything_and_a_line_per_finished_trial(one):
    records, _, page = one
    place = re.search(r'Plotly\.newPlot\(\s*"plot-parallel",\s*', page)
    decoder = json.JSONDecoder()
    drawn, after = decoder.raw_decode(page, place.end())
    layout, _ = decoder.raw_decode(page, re.compile(r"\s*,\s*").match(page, after).end())
    finished = [record for record in records if record.status == "finished"]
    lines = [trace for trace in drawn if trace["mode"] == "lines" and trace.get("customdata")]
    assert len(lines) == len(finished)
    axes = [note["text"] for note in layout["annotations"] if note["text"].startswith("<b>")]
    assert axes == ["<b>ARS, %</b>", *sorted(f"<b>{one.name}</b>" for one in SPACE.parameters)]
    assert list(numbers(lines[0]["y"])) == list(range(len(axes))), "the axes lie below each other"


def test_epochs_saved_are_told_apart(one):
    records, _, page = one
    shares = saved_epochs(records, EPOCHS)
    count = {status: sum(record.status == status for record in records) for status in ("stopped", "collapsed", "error")}
    assert shares.stopped == pytest.approx(count["stopped"] * 6 / (40 * 9))
    assert shares.lost == pytest.approx(count["collapsed"] * 7 / (40 * 9))
    assert shares.other == pytest.approx(count["error"] * 9 / (40 * 9))
    trained = sum(record.epoch for record in records)
    assert shares.total == pytest.approx(1 - trained / (40 * 9))
    assert f"39 % of 360 epochs were not trained ({trained} were)" in page
    missing = next(trace for trace in traces(page, "epochs") if trace["name"] == "not trained")
    assert list(numbers(missing["y"])) == [EPOCHS - record.epoch for record in records]


def test_failed_and_collapsed_trials_stand_with_their_reasons(one):
    records, _, page = one
    lost = [record for record in records if record.status in ("collapsed", "error")]
    found = table(page, "lost")
    assert [int(row[0]) for row in found] == [record.number for record in lost]
    assert [row[1] for row in found] == [record.status for record in lost]
    assert REASON.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in [row[3] for row in found]
    assert "RuntimeError: out of memory" in [row[3] for row in found]
    assert "a &amp; &lt;b&gt;" in page


def test_nothing_is_fetched_from_elsewhere(one):
    page = one[2]
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=(?!\"data:)", page)
    assert not re.search(r"@import|url\(", page)


def test_several_objectives_have_their_own_fronts_and_importances(tmp_path):
    names = ("ARS", "R@1", "ERS")
    records = search()
    _, page = written(tmp_path, records, objectives=names)
    assert [name for name in charts_of(records, SPACE, names, EPOCHS)[0] if name.startswith("front")] == [
        "front ARS R@1",
        "front ARS ERS",
        "front R@1 ERS",
    ]
    assert len(traces(page, "importance")) == 3
    best = best_first(records, names)[0]
    assert f"Trial {best.number}: validation ARS {best.scores['ARS']:.1f} %, validation R@1" in " ".join(page.split())


def test_a_finished_trial_that_had_spent_its_allowance_was_not_stopped():
    record = end(TrialRecord(1, {}, BASE), "finished", 6, 40.0)
    assert saved_epochs([record], EPOCHS).spent == saved_epochs([record], EPOCHS).total == pytest.approx(1 / 3)


@pytest.mark.parametrize("trials", [1, 3, 4])
def test_too_few_finished_trials_are_said_instead_of_drawn(tmp_path, trials):
    records = search(trials)
    files, page = written(tmp_path, records)
    count = sum(record.status == "finished" for record in records)
    assert f"No importance: {count} of {trials} trials reached their last epoch; this takes 4 or more." in page
    assert "No slices and no contour" in page
    assert {file.stem for file in files[1:]} == {"history", "curves", "front", "parallel", "epochs"}


def test_a_search_in_which_everything_failed_still_has_its_report(tmp_path):
    values = SPACE.suggest(optuna.create_study().ask())
    record = end(TrialRecord(1, values, SPACE.configure(BASE, values)), "nan", 1, 0.0, "loss nan")
    _, page = written(tmp_path, [record])
    assert page.count("No trial reached its last epoch.") == 3
    assert table(page, "lost") == [["1", "nan", "1", "loss nan"]]


def test_trials_that_scored_alike_make_no_parameter_important(tmp_path):
    _, page = written(tmp_path, search(16, value_of=lambda values: 50.0))
    assert "All finished trials had the same score" in page


def test_choices_that_matter_most_are_shown_trial_by_trial(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "replace: true\nparameters: {ramp: {}, training.miner: {values: [random, semi-hard]}}"
    )
    space = build_space(BASE, file=tmp_path / "space.yaml")
    records = search(24, space=space, value_of=lambda values: 10.0 * len(values["ramp"]) + len(values["miner"]))
    files, page = written(tmp_path, records, space=space)
    assert "contour.png" in [file.name for file in files]
    assert {trace["type"] for trace in traces(page, "slices")} <= {"scatter", "box"}
