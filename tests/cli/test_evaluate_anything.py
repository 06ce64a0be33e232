"""scripts/evaluate.py on models and images that ColoTride did not make."""

import json

import mlflow
import numpy as np
import pytest
import torch
from pyarrow import parquet

from colotride.cli.arguments import parse
from colotride.cli.evaluate import subject_of
from colotride.cli.options.evaluate import Evaluate
from colotride.errors import ConfigurationError
from colotride.evaluation.results import load_evaluation
from tests.commands import refused, run
from tests.layouts import picture

MODULE = """
import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.linear, self.scale = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8 * 49, 16), scale

    def forward(self, images):
        maps = functional.relu(self.convolution(images))
        return self.scale * functional.normalize(self.linear(maps.flatten(1)), dim=1)


def net():
    return Net()
"""

SIZES = ("--image-size", "16", "--steps", "2", "--epsilon", "8/255", "--step-size", "2/255", "--batch-size", "8")


@pytest.fixture
def place(tmp_path):
    """A working directory with a module that makes models, and 24 photographs in four folders."""
    (tmp_path / "mine.py").write_text(MODULE)
    random = np.random.default_rng(0)
    for label in range(4):
        folder = tmp_path / "photographs" / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(6):
            picture(label, 20, random).save(folder / f"{index}.png")
    return tmp_path


def evaluate(place, *arguments, model="mine:net"):
    asked = ("--model", model, "--dataset", "folder", "--data-root", "photographs", *SIZES, *arguments)
    return run("scripts/evaluate.py", *asked, cwd=place)


def scores(done):
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["benign"] | told["attacked"] | {"ERS": told["ERS"], "ARS": told["ARS"]}


def subject(*arguments):
    return subject_of(parse(Evaluate, ("--dataset", "folder", "--data-root", "photographs", *arguments)))


def test_a_network_of_timm_is_evaluated_by_name(place, monkeypatch):
    """At the size of its own record unless another one is asked for; its weights may lie in a file."""
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(place)
    plain = timm.create_model("test_resnet")
    torch.save(plain.state_dict(), "weights.pth")
    one = subject("--model", "timm:test_resnet", "--weights", "weights.pth")
    model, images = one.load()
    assert one.config.data.image_size == images.pixels(torch.arange(1)).shape[-1] == 160
    assert subject("--model", "timm:test_resnet", "--image-size", "32").config.data.image_size == 32
    assert torch.equal(model.backbone.state_dict()["conv1.0.weight"], plain.state_dict()["conv1.0.weight"])
    assert model(torch.rand(2, 3, 160, 160)).shape == (2, plain.num_features)
    with pytest.raises(ConfigurationError, match="mine:net is none"):
        subject("--model", "mine:net", "--weights", "x.pth")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore:.*type hint.*:UserWarning")
def test_a_function_a_script_and_a_registered_model_score_the_same(place, monkeypatch):
    expected = scores(evaluate(place, "--json", "--output", "one"))
    monkeypatch.syspath_prepend(place)
    import mine

    model = mine.net().eval()
    torch.jit.script(model).save(str(place / "net.pt"))
    assert scores(evaluate(place, "--json", model="net.pt")) == pytest.approx(expected, abs=1)
    store = f"sqlite:///{place}/mlflow.db"
    monkeypatch.chdir(place)
    mlflow.set_tracking_uri(store)
    with mlflow.start_run():
        info = mlflow.pytorch.log_model(model, name="net", serialization_format="pickle")
    asked = ("--model", info.model_uri, "--dataset", "folder", "--data-root", "photographs", *SIZES, "--json")
    done = run("scripts/evaluate.py", *asked, cwd=place, MLFLOW_TRACKING_URI=store)
    assert scores(done) == pytest.approx(expected, abs=1)
    mlflow.pytorch.save_model(model, place / "folder", serialization_format="pickle")
    assert "give --trust if you trust its source" in refused(evaluate(place, model="folder"))
    assert scores(evaluate(place, "--trust", "--json", model="folder")) == pytest.approx(expected, abs=1)


@pytest.mark.slow
def test_results_tables_report_leaderboard_and_sanity_are_written(place):
    done = evaluate(place, "--sanity", "--leaderboard", "board.jsonl", "--name", "mine", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "NES" in done.stdout
    result = load_evaluation(place / "out")
    assert len(result.per_query["CA+"]["after"]) == 24
    assert parquet.read_table(place / "out" / "benign.parquet").num_rows == 24
    assert "<svg" in (place / "out" / "report.html").read_text()
    assert not (place / "out" / "partial").exists()
    board = run("scripts/leaderboard.py", "table", "board.jsonl", cwd=place)
    assert f"| mine | {result.benign['R@1']:.1f}" in board.stdout


@pytest.mark.slow
def test_workers_split_the_queries_and_give_the_same_numbers(place):
    beside = ("--black-box", "square", "transfer", "--surrogate", "mine:net", "--calls", "5", "--certify", "0.1")
    beside += ("--certify-samples", "20", "--universal")
    alone = evaluate(place, "--json", "--output", "alone", *beside)
    split = evaluate(place, "--json", "--output", "split", "--workers", "2", *beside)
    assert scores(split) == scores(alone)
    one, other = load_evaluation(place / "alone"), load_evaluation(place / "split")
    for name, values in one.per_query.items():
        assert torch.equal(values["after"], other.per_query[name]["after"]), name
    tables = [{table.name: table.rows for table in found.measurements} for found in (one, other)]
    assert list(tables[0]) == ["fairness", "black box", "universal", "certified"]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_corrupt_image_in_the_middle_is_one_line_and_the_rest_resumes(place):
    expected = scores(evaluate(place, "--json", "--output", "whole"))
    image = place / "photographs" / "class2" / "3.png"
    sound = image.read_bytes()
    image.write_bytes(sound[:60])
    assert f"image {image} cannot be decoded" in refused(evaluate(place, "--output", "cut"))
    image.write_bytes(sound)
    assert scores(evaluate(place, "--json", "--output", "cut", "--resume")) == expected
