import functools
import html
import json
import re

import pytest
import torch
from markdown_it import MarkdownIt

from colotride.errors import DataError
from colotride.evaluation import leaderboard
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.settings import EvaluationSettings
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel


@functools.cache
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
    entries.append(entries[0].model_copy(update={"model": "better", "ARS": weak.ARS + 5}))
    table = leaderboard.tables(entries)
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


@pytest.mark.parametrize(
    "change",
    [{"ARS": "high"}, {"ERS": float("nan")}, {"model": None}, {"benign": [1]}, {"intervals": {"ARS": ["a", "b"]}}],
    ids=str,
)
def test_a_line_with_a_wrong_value_is_named(tmp_path, change):
    path = tmp_path / "board.jsonl"
    leaderboard.append(path, result(), model="one", dataset="toy")
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(DataError, match="line 2"):
        leaderboard.read(path)


@pytest.mark.parametrize(
    "name", ["a | b", "<script>alert(1)</script>", "[x](http://y)", "a\n| b", "`c` *d* _e_", "a\\|b"]
)
def test_a_name_is_shown_letter_by_letter(tmp_path, name):
    path = tmp_path / "board.jsonl"
    leaderboard.append(path, result(), model=name, dataset=name)
    table = leaderboard.tables(leaderboard.read(path))
    page = MarkdownIt("gfm-like", {"linkify": False}).render(table)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert html.unescape(cells[0]) == name.replace("\n", "\ufffd")
    assert len(cells) == 6, "the row keeps its columns"
    assert html.unescape(re.search(r"<h3>(.*), strict", page)[1]) == name.replace("\n", "\ufffd")
