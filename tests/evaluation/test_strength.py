"""What is measured beside the attacks: asked for in one call, refused in one line, and written everywhere."""

import json
from dataclasses import replace

import pytest
import torch
from pyarrow import parquet
from torch import nn
from torch.nn import functional

import colotride as ct
from colotride.data.images import as_image_set
from colotride.errors import ColoTrideError
from colotride.evaluation import strength
from colotride.evaluation.evaluator import evaluate_clean
from colotride.evaluation.results import load_evaluation, save_evaluation
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.strength import measure_strength
from colotride.evaluation.strength_settings import StrengthSettings
from colotride.evaluation.table import measurement_table
from tests.toys import FlatModel

SMALL = {"steps": 2, "bootstrap": 0, "clusterings": 1, "device": "cpu", "batch_size": 16, "epsilon": 0.1}
ALL = {"black_box": ("square", "nes", "qair", "transfer"), "calls": 6, "universal": True, "poison": 2}
ALL |= {"certify": (0.1, 0.2), "certify_samples": 20, "certify_radii": (0, 0.05)}


class Net(FlatModel):
    def __init__(self, seed=0):
        super().__init__(48, 6, seed)


class OtherSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(75, 6)

    def forward(self, images):
        return functional.normalize(self.linear(images.flatten(1)), dim=1)


def data():
    random = torch.Generator().manual_seed(0)
    base = torch.randint(60, 196, (4, 3, 4, 4), generator=random)
    noise = torch.randint(-25, 26, (40, 3, 4, 4), generator=random)
    return (base.repeat(10, 1, 1, 1) + noise).to(torch.uint8), torch.arange(40) % 4


@pytest.fixture(scope="module")
def result():
    return ct.evaluate(Net(), *data(), queries=20, surrogate=Net(seed=3), **ALL, **SMALL)


@pytest.mark.slow
def test_one_call_measures_everything(result):
    found = {one.name: one for one in result.measurements}
    assert list(found) == ["fairness", "black box", "universal", "poisoning", "certified"]
    assert list(found["black box"].rows) == ["square", "nes", "qair", "transfer"]
    assert list(found["certified"].rows) == ["sigma 0.1", "sigma 0.2"]
    assert found["certified"].calls == 20 * 2 * 120
    assert found["fairness"].settings == {"classes": 4, "queries per class": 5.0}
    assert found["fairness"].rows["ERS"]["mean of classes"] == pytest.approx(result.ERS, abs=10)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures_in_batches_of_any_size(result):
    again = ct.evaluate(Net(), *data(), queries=20, surrogate=Net(seed=3), **ALL, **(SMALL | {"batch_size": 7}))
    for one, other in zip(result.measurements, again.measurements, strict=True):
        if one.name != "universal":  # takes a step per batch
            assert other.rows.keys() == one.rows.keys()
            for name, figures in one.rows.items():
                assert other.rows[name] == pytest.approx(figures, nan_ok=False), (one.name, name)


def test_without_a_word_only_the_classes_are_scored():
    found = ct.evaluate(Net(), *data(), queries=12, **SMALL)
    assert [one.name for one in found.measurements] == ["fairness"]


def test_files_tables_and_the_report_have_it(result, tmp_path):
    save_evaluation(result, tmp_path)
    plain = json.loads((tmp_path / "evaluation.json").read_text())
    assert plain["measurements"][1]["rows"]["square"]["R@1 before"] > 0
    assert load_evaluation(tmp_path).measurements == result.measurements
    classes = parquet.read_table(tmp_path / "classes.parquet")
    assert classes["class"].to_pylist() == [0, 1, 2, 3]
    assert {"R@1", "ERS", "ARS", "GTM"} <= set(classes.column_names)
    page = result.report(tmp_path / "report.html").read_text()
    for one in result.measurements:
        assert f"<h2>{one.title}</h2>" in page
        assert f'id="{one.name.replace(" ", "-")}"' in page
        assert measurement_table(one).row_count == len(one.rows)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"certify": 0.0}, "certify = 0.0"),
        ({"certify": (0.1, -1.0)}, "certify = -1"),
        ({"poison": 0}, "poison = 0"),
        ({"poison": 11}, "poison 11 needs twice as many queries"),
        ({"calls": 2}, "calls = 2"),
        ({"black_box": "sqare"}, "black_box = 'sqare'"),
        ({"black_box": ("nes", "nes")}, "names an attack twice"),
        ({"black_box": "transfer"}, "give one as surrogate"),
        ({"surrogate": OtherSize(), "black_box": "transfer"}, "the surrogate cannot embed images of 3 x 4 x 4"),
        ({"certify_radii": ()}, "certify_radii = ()"),
    ],
)
def test_bad_input_is_refused_in_one_line(asked, complaint):
    with pytest.raises(ColoTrideError) as caught:
        ct.evaluate(Net(), *data(), queries=20, **SMALL, **asked)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_measurements_that_were_interrupted_are_resumed_to_the_same_figures(tmp_path, monkeypatch):
    model, images = Net(), as_image_set(*data())
    settings = EvaluationSettings(**{name: SMALL[name] for name in ("steps", "bootstrap", "clusterings", "epsilon")})
    asked = StrengthSettings(black_box=("square", "transfer"), calls=6, universal=True, poison=2)

    def measured(seed=0, resume=True):
        plan = evaluate_clean(model, images, settings, image_size=4, seed=seed, device=torch.device("cpu")).plan
        found = measure_strength(model, images, plan, asked, Net(seed=3), None, tmp_path, resume=resume)
        return [replace(one, seconds=0.0) for one in found]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(strength, "poisoning_measurement", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measured()
    with monkeypatch.context() as patch:
        for name in ("black_box_measurement", "universal_measurement"):
            patch.setattr(strength, name, interrupt)
        resumed = measured()
        with pytest.raises(KeyboardInterrupt):
            measured(seed=1)
        with pytest.raises(KeyboardInterrupt):
            measured(resume=False)
    assert resumed == measured(resume=False)
