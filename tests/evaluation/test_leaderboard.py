import json

import pytest
import torch

from colotride.errors import DataError
from colotride.evaluation import leaderboard
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.settings import EvaluationSettings
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel


def result(epsilon=0.1, **values):
    settings = EvaluationSettings(steps=2, step_size=0.05, epsilon=epsilon, bootstrap=20, **values)
    return evaluate(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))


def test_entries_are_appended_and_ranked_among_what_is_comparable(tmp_path):
    path = tmp_path / "board.jsonl"
    weak, strong = result(0.1), result(0.01)
    leaderboard.append(path, weak, model="weak", dataset="toy")
    before = path.read_bytes()
    leaderboard.append(path, result(0.1, protocol="published"), model="old", dataset="toy")
    assert path.read_bytes().startswith(before)
    entries = leaderboard.read(path)
    entries.append(json.loads(json.dumps(entries[0] | {"model": "better", "ARS": weak.ARS + 5})))
    table = leaderboard.markdown(entries)
    assert table.index("better") < table.index("weak")
    assert table.count("### toy") == 2, "protocols stand in tables of their own"
    low, high = weak.intervals["ERS"]
    assert f"{weak.ERS:.1f} ({low:.1f} to {high:.1f})" in table
    assert strong.ARS > weak.ARS


def test_a_line_that_is_no_evaluation_is_named(tmp_path):
    path = tmp_path / "board.jsonl"
    leaderboard.append(path, result(), model="one", dataset="toy")
    path.write_text(path.read_text() + '{"model": "half"\n')
    with pytest.raises(DataError, match="line 2"):
        leaderboard.read(path)
    with pytest.raises(DataError, match="is not there"):
        leaderboard.read(tmp_path / "none.jsonl")
