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
from colotride.evaluation import strength_parts
from colotride.evaluation.chunks import in_process
from colotride.evaluation.evaluator import evaluate_clean
from colotride.evaluation.measurement import Measurement
from colotride.evaluation.results import load_evaluation, save_evaluation
from colotride.evaluation.settings import EvaluationSettings
from colotride.evaluation.strength import measure_strength
from colotride.evaluation.strength_parts import PartStore, QueryValues, StrengthPart
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


PARTS = StrengthSettings(
    black_box=("square", "transfer"),
    calls=6,
    universal=True,
    poison=2,
    certify=(0.1, 0.2),
    certify_samples=8,
    certify_selection=4,
)
TITLES = ["square", "square", "transfer", "transfer", "perturbation", "poisoning", "0.1", "0.1", "0.2", "0.2"]


@pytest.fixture
def short_parts(monkeypatch):
    monkeypatch.setattr(strength_parts, "BATCHES_PER_CHUNK", 1)


def plan_of(model, images, seed=0):
    settings = EvaluationSettings(**{name: SMALL[name] for name in ("steps", "bootstrap", "clusterings", "epsilon")})
    settings = settings.with_values({"batch_size": 8, "queries": 16})
    return evaluate_clean(model, images, settings, image_size=4, seed=seed, device=torch.device("cpu")).plan


def without_seconds(found):
    return [replace(one, seconds=0.0) for one in found]


def test_parts_in_another_order_and_place_give_the_same_figures(short_parts):
    model, images = Net(), as_image_set(*data())
    plan, loaded = plan_of(model, images), []

    def surrogate():
        loaded.append(1)
        return Net(seed=3)

    def backwards(work, plan, parts):
        assert [one.title(PARTS).split()[-1] for one in parts] == TITLES
        for part in reversed(parts):
            yield part, work(plan, part, model, images)

    apart = measure_strength(model, images, plan, PARTS, Net(seed=3), executor=backwards, load_surrogate=surrogate)
    assert loaded == [1], "once for all parts"
    assert without_seconds(apart) == without_seconds(measure_strength(model, images, plan, PARTS, Net(seed=3)))
    assert all(one.seconds > 0 for one in apart)


@pytest.mark.parametrize("allowed", [0, 3, 5])
def test_measurements_that_were_interrupted_are_resumed_to_the_same_figures(tmp_path, short_parts, allowed):
    model, images, done = Net(), as_image_set(*data()), []

    def measured(executor, seed=0, resume=True):
        plan = plan_of(model, images, seed)
        found = measure_strength(
            model, images, plan, PARTS, Net(seed=3), None, tmp_path, resume=resume, executor=executor
        )
        return without_seconds(found)

    def cut(work, plan, parts):
        for part in parts[:allowed]:
            yield part, work(plan, part, model, images)
        raise KeyboardInterrupt

    def counting(work, plan, parts):
        done.append(len(parts))
        return in_process(model, images)(work, plan, parts)

    with pytest.raises(KeyboardInterrupt):
        measured(cut)
    resumed = measured(counting)
    measured(counting, seed=1)
    assert resumed == measured(counting, resume=False)
    assert done == [10 - allowed, 10, 10], "another seed's parts are never taken, and without resume none are"


def test_half_a_part_on_disk_counts_as_none(tmp_path):
    store = PartStore(tmp_path, "0" * 64)
    values, table = (
        QueryValues({"calls": torch.tensor([3, 4])}, 1.5),
        Measurement("universal", "", "", {"a": {"b": 1.0}}),
    )
    for part, found in ((StrengthPart("black box", 0, 2), values), (StrengthPart("universal", 0, 2), table)):
        assert store.load(part) is None
        store.save(part, found)
        again = store.load(part)
        if isinstance(again, QueryValues):
            assert (again.values["calls"].tolist(), again.seconds) == ([3, 4], 1.5)
        else:
            assert again == table
        (file,) = (one for one in store.folder.iterdir() if one.name.startswith(part.name))
        file.write_bytes(file.read_bytes()[:-3])
        assert store.load(part) is None
