"""What a search tries first."""

import pytest

from colotride.config import save_config
from colotride.errors import SearchError
from colotride.presets import preset
from colotride.tune.plan import initial_points, new_plan, parse_objectives, save_plan
from colotride.tune.space import build_space

DIGITS = preset("digits")
SPACE = build_space(DIGITS)


def saved(path, **values):
    save_config(DIGITS.with_values({key.replace("__", "."): value for key, value in values.items()}), path)
    return path


def test_the_papers_values_come_first_then_files_and_folders_each_once(tmp_path):
    file = saved(tmp_path / "some.yaml", collapseness__attention_factor=3)
    search, run = tmp_path / "search", tmp_path / "run"
    saved(search / "best.yaml", pgd__steps=4)
    saved(search / "default.yaml")
    saved(run / "config.yaml", pgd__ramp="constant")
    same = saved(tmp_path / "same.yaml", training__epochs=99)
    points = initial_points(SPACE, DIGITS, [file, search, run, same, file])
    assert points[0] == SPACE.values_of(DIGITS)
    assert [point["attention_factor"] for point in points] == [10, 3, 10, 10]
    assert [point["pgd_steps"] for point in points] == [8, 8, 4, 8]
    assert ["ramp_length" in point for point in points] == [True, True, True, False]


def test_the_best_of_a_search_is_a_start_even_at_the_end_of_a_range(tmp_path):
    space = SPACE
    best = space.configure(DIGITS, {**space.values_of(DIGITS), "step_size_over_epsilon": 0.5, "attention_factor": 50.0})
    save_config(best, tmp_path / "best.yaml")
    point = initial_points(space, DIGITS, [tmp_path])[1]
    assert (point["step_size_over_epsilon"], point["attention_factor"]) == (0.5, 50)


def test_a_base_outside_a_narrowed_space_starts_at_the_nearest_end(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "parameters: {pgd_steps: {high: 6}, ramp: {values: [cosine, constant]}, attention_factor: {low: 20}}"
    )
    space = build_space(DIGITS, file=tmp_path / "space.yaml")
    (point,) = initial_points(space, DIGITS, [])
    assert (point["pgd_steps"], point["ramp"], point["attention_factor"]) == (6, "cosine", 20)
    assert point["ramp_length"] == 1, "the ramp that stands for the run's has a length too"


def test_a_start_outside_the_space_is_refused_by_name(tmp_path):
    file = saved(tmp_path / "far.yaml", pgd__steps=64)
    with pytest.raises(
        SearchError, match=r"--start-from .*far.yaml: .*pgd_steps 64 lies outside the space \(2 to 32\); widen"
    ):
        initial_points(SPACE, DIGITS, [file])


def test_a_start_of_another_defense_is_refused(tmp_path):
    file = saved(tmp_path / "natural.yaml", defense={"name": "natural"})
    with pytest.raises(
        SearchError, match=r"natural.yaml: .*defense\.top_ranked_coefficient, which this run does not have"
    ):
        initial_points(SPACE, DIGITS, [file])


def test_a_start_from_a_search_over_more_parameters_is_refused(tmp_path):
    wide = new_plan(DIGITS, groups=["learning-rate"])
    save_plan(wide, tmp_path)
    saved(tmp_path / "best.yaml", training__learning_rate=2e-4)
    for given in (tmp_path, tmp_path / "best.yaml"):
        with pytest.raises(SearchError, match=r"varied .*learning_rate.* too, .*; give the same --groups"):
            new_plan(DIGITS, start_from=[given])
    first, second = new_plan(DIGITS, groups=["learning-rate"], start_from=[tmp_path]).initial_points
    assert second == first | {"learning_rate": 2e-4}
    # A narrower search says all that it varied, and of the rest its base.
    save_plan(new_plan(DIGITS), tmp_path)
    assert len(new_plan(DIGITS, groups=["learning-rate"], start_from=[tmp_path]).initial_points) == 2


@pytest.mark.parametrize(
    ("name", "complaint"), [("none.yaml", "cannot be read"), (".", "neither best.yaml nor config.yaml")]
)
def test_a_start_that_is_not_there_is_one_line(tmp_path, name, complaint):
    with pytest.raises(SearchError, match=complaint) as error:
        initial_points(SPACE, DIGITS, [tmp_path / name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "scores"), [("ars", ("ARS",)), ("r1,ars", ("R@1", "ARS")), ("ERS, map", ("ERS", "mAP"))]
)
def test_objectives_by_their_names(text, scores):
    assert parse_objectives(text) == scores


@pytest.mark.parametrize("text", ["accuracy", "", "ars,ars", "ars,,r1"])
def test_an_objective_that_does_not_exist_is_refused(text):
    with pytest.raises(SearchError, match="objective"):
        parse_objectives(text)


@pytest.mark.parametrize(("epochs", "first"), [(1, 2), (8, 2), (10, 2), (50, 10), (100, 20)])
def test_a_trial_has_a_fifth_of_its_epochs_and_at_least_two_before_it_may_be_stopped(epochs, first):
    assert new_plan(DIGITS.with_values({"training.epochs": epochs})).grace == first
