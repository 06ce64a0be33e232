"""Measurements beside the attacks, from the command line: one small evaluation, and every refusal."""

import json

import pytest

from colotride.cli.main import execute, main
from colotride.evaluation.results import load_evaluation

MODULE = """
import torch
from torch import nn
from torch.nn import functional


class Flat(nn.Module):
    def __init__(self, side):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(side * side, 8)

    def forward(self, images):
        return functional.normalize(self.linear(images.flatten(1) - 0.5), dim=1)


def net():
    return Flat(8)


def other_size():
    return Flat(10)
"""
ASKED = ("--model", "flat_nets:net", "--dataset", "digits", "--image-size", "8", "--queries", "8", "--steps", "1")
SMALL = ("--example-queries", "0", "--output", "out")


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "flat_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_one_command_measures_and_writes_everything(place, capsys):
    measures = ("--black-box", "square", "nes", "qair", "transfer", "--surrogate", "flat_nets:net", "--calls", "4")
    measures += (
        "--universal",
        "--poison",
        "2",
        "--certify",
        "0.1",
        "--certify-samples",
        "5",
        "--certify-radii",
        "0",
        "0.1",
    )
    assert execute("evaluate", [*ASKED, *SMALL, *measures, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["measurements"]
    assert [one["name"] for one in told] == ["fairness", "black box", "universal", "poisoning", "certified"]
    assert set(told[1]["rows"]) == {"square", "nes", "qair", "transfer"}
    assert set(told[4]["rows"]["sigma 0.1"]) == {"abstains %", "R@1 at 0", "R@1 at 0.1", "mean radius"}
    kept = load_evaluation(place / "out").measurements
    assert [one.rows for one in kept] == [one["rows"] for one in told]
    page = (place / "out" / "report.html").read_text()
    assert all(one["title"] in page for one in told)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--certify", "0"), "--certify 0"),
        (("--poison", "0"), "--poison 0"),
        (("--poison", "500"), "poison 500 needs twice as many queries"),
        (("--calls", "2"), "--calls 2"),
        (("--black-box", "sqare"), "--black-box sqare"),
        (("--black-box", "transfer"), "give one as surrogate"),
        (("--surrogate", "flat_nets:other_size", "--sanity"), "flat_nets:other_size failed on images (4, 1, 8, 8)"),
    ],
)
def test_bad_input_gets_one_line(place, capsys, monkeypatch, words, complaint):
    monkeypatch.setattr("sys.argv", ["colotride", "evaluate", *ASKED, *SMALL, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert complaint in lines[0]
    assert not (place / "out").exists()
