"""Several radii in one evaluation, and both norms: each point is an evaluation of its own."""

import dataclasses
import json

import pytest
import torch
from pydantic import ValidationError

from colotride.cli.arguments import parse
from colotride.cli.evaluate import subject_of
from colotride.cli.options.evaluate import Evaluate
from colotride.errors import ConfigurationError
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.results import Evaluation
from colotride.evaluation.settings import EvaluationSettings
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel

RADII = (0.0, 0.04, 0.1)


def run(epsilon, **values):
    values = {"steps": 5, "step_size": 0.03, "bootstrap": 30} | values
    settings = EvaluationSettings(epsilon=epsilon, **values)
    return evaluate(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_point_of_a_curve_is_the_evaluation_at_its_radius(norm):
    radii = RADII if norm == "linf" else (0.05, 0.2, 0.5)
    curve = run(list(radii), norm=norm)
    assert [point.epsilon for point in curve.curve] == list(radii)
    for point in curve.curve:
        alone = run(point.epsilon, norm=norm, step_size=0.03 * point.epsilon / radii[-1] or 0.03)
        assert (point.ARS, point.ERS) == (alone.ARS, alone.ERS)
        assert (point.attacked, point.resistance) == (alone.attacked, alone.resistance)
        assert point.intervals == {name: alone.intervals[name] for name in point.intervals}
        assert "ARS" in point.intervals
    last = curve.curve[-1]
    assert (curve.epsilon, curve.ARS, curve.attacked) == (radii[-1], last.ARS, last.attacked)
    assert curve.norm == norm


def test_the_curve_of_the_strong_protocol_never_rises():
    curve = run([0.02, 0.05, 0.1, 0.2], protocol="strong").curve
    for name in ("ARS", "ERS"):
        scores = [getattr(point, name) for point in curve]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] < scores[0] - 5


def test_every_point_of_a_strong_curve_says_what_the_strict_protocol_finds_there():
    strong, strict = run(list(RADII[1:]), protocol="strong"), run(list(RADII[1:]))
    for point, expected in zip(strong.curve, strict.curve, strict=True):
        assert point.strict["ARS"] == pytest.approx(expected.ARS, abs=1e-6)
        assert point.strict["ERS"] == pytest.approx(expected.ERS, abs=1e-6)
        assert point.gap["ARS"] == pytest.approx(expected.ARS - point.ARS, abs=1e-6)
        assert set(point.gap) == {"ERS", "ARS"} | {f"ARS {name}" for name in point.resistance}
        assert not expected.strict
        assert not expected.gap
    assert strong.curve[-1].strict == strong.convergence.strict


def test_a_curve_comes_back_from_json():
    result = run(list(RADII), protocol="strong")
    again = Evaluation.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    assert again.convergence.gap == result.convergence.gap
    assert len(again.curve) == 3


def test_the_curve_is_drawn_where_there_is_one():
    figure = run(list(RADII)).plot()
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    result = run(list(RADII))
    assert list(lines["ARS"].get_ydata()) == [point.ARS for point in result.curve]
    assert list(lines["ERS"].get_xdata()) == pytest.approx([255 * point.epsilon for point in result.curve])
    assert not [line for axes in run(0.1).plot().axes for line in axes.get_lines() if line.get_label() == "ARS"]


def test_radii_are_sorted_and_written_as_one_writes_them():
    settings = EvaluationSettings(epsilon=["4/255", 2 / 255, 4 / 255])
    assert settings.all_radii == (2 / 255, 4 / 255)
    assert EvaluationSettings.model_validate_json(settings.model_dump_json()) == settings
    assert EvaluationSettings(epsilon=["4/255"]).radii == ()
    again = settings.with_values({"epsilon": "8/255"})
    assert again.all_radii == (8 / 255,)
    assert again.step_size == pytest.approx(2 * settings.step_size)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"epsilon": []}, "epsilon is an empty list"),
        ({"epsilon": [0.1, -0.1]}, "epsilon -0.1 is below 0"),
        ({"epsilon": -0.1}, "greater than or equal to 0"),
        ({"epsilon": ["8/255", "x"]}, "'x' is neither a number nor a fraction"),
        ({"epsilon": [0.1, 2.0]}, "epsilon 2 is above 1"),
        ({"epsilon": 0.0, "norm": "l2"}, "epsilon 0 in the l2 norm leaves nothing to attack"),
        ({"epsilon": [0.0, 0.5], "norm": "l2"}, "epsilon 0 in the l2 norm leaves nothing to attack"),
        ({"epsilon": 0.5, "step_size": 0.0, "norm": "l2"}, "greater than 0"),
    ],
)
def test_radii_that_mean_nothing_are_refused(values, complaint):
    with pytest.raises(ValidationError, match=complaint):
        EvaluationSettings(**values)


def test_another_norm_needs_a_radius_of_its_own():
    with pytest.raises(ConfigurationError, match="norm l2 needs a radius of its own"):
        EvaluationSettings().with_values({"norm": "l2"})
    wide = EvaluationSettings().with_values({"norm": "l2", "epsilon": 3.0})
    assert wide.step_size == pytest.approx(3.0 * 3 / 8)
    assert wide.budget(1.5).step_size == pytest.approx(1.5 * 3 / 8)


def test_radii_of_different_norms_are_different_evaluations():
    one, other = run(0.1), run(0.1, norm="l2")
    assert one.ARS < other.ARS
    assert dataclasses.replace(one, norm="l2") != one


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--epsilon"], "--epsilon: expected at least one argument"),
        (["--epsilon", "-1/255"], "--epsilon -1/255: should be greater than or equal to 0"),
        (["--epsilon", "8/255", "2"], "--epsilon 2 is above 1, the range of a pixel"),
        (["--norm", "l2", "--epsilon", "0"], "--epsilon 0 in the l2 norm leaves nothing to attack"),
        (["--norm", "l2", "--epsilon", "0", "0.5"], "--epsilon 0 in the l2 norm leaves nothing to attack"),
        (["--norm", "l2"], "norm l2 needs a radius of its own"),
        (["--extra-attacks", "mine"], "no attack 'mine'"),
    ],
)
def test_the_command_refuses_them_in_one_line(words, complaint):
    with pytest.raises(ConfigurationError, match=complaint) as error:
        subject_of(parse(Evaluate, ["--model", "x", "--dataset", "digits", *words]))
    assert "\n" not in str(error.value)


def test_the_command_takes_radii_and_a_norm():
    words = ["--model", "x", "--dataset", "digits", "--norm", "l2", "--epsilon", "0.5", "1", "--protocol", "strong"]
    settings = subject_of(parse(Evaluate, words)).config.evaluation
    assert (settings.all_radii, settings.norm, settings.protocol) == ((0.5, 1.0), "l2", "strong")
