import json

import pytest

from tests.commands import refused, run

pytestmark = pytest.mark.slow


def test_step_prints_a_table_and_writes_json_and_a_chart(tmp_path):
    asked = ["step", "--image-sizes", "28", "--triplets", "4", "--steps", "1", "--rounds", "1", "--output", "."]
    done = run("scripts/benchmark.py", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "CAP + ANP" in done.stdout
    assert "textbook" in done.stdout
    written = json.loads((tmp_path / "step.json").read_text())
    assert written["rows"][-1]["step"] == "CAP + ANP"
    assert "threads" in written["machine"]
    assert (tmp_path / "step.png").stat().st_size > 1000


def test_profile_shares_add_up(tmp_path):
    asked = ["profile", "--image-sizes", "28", "--triplets", "4", "--steps", "2", "--output", ".", "--json"]
    done = run("scripts/benchmark.py", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[0]["share"] >= rows[1]["share"]


def test_fine_tuning_counts_what_is_trained(tmp_path):
    pytest.importorskip("timm")
    asked = ["fine-tuning", "--image-sizes", "64", "--triplets", "4", "--steps", "1", "--rounds", "1", "--output", "."]
    done = run("scripts/benchmark.py", *asked, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["trains"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["embedding layer"]["weights"] == 384 * 512 + 512 + 2 * 384, "and the normalisation before it"
    assert rows["everything"]["weights"] > 21e6
    assert rows["embedding layer"]["weights"] < rows["LoRA, rank 8"]["weights"] < rows["last block"]["weights"]
    assert rows["last block"]["weights"] < rows["last 4 blocks"]["weights"] < rows["everything"]["weights"]


def test_an_exact_index_misses_nothing_and_a_graph_little(tmp_path):
    asked = ["index", "--galleries", "3000", "--output", ".", "--json"]
    done = run("scripts/benchmark.py", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exact, graph = json.loads(done.stdout)["rows"]
    assert (exact["images"], exact["kind"], exact["recall"]) == (3000, "exact", 1)
    assert (graph["images"], graph["kind"]) == (3000, "hnsw")
    assert 0.5 < graph["recall"] <= 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["stpe"], "WHAT stpe"), (["step", "--rounds", "0"], "--rounds"), (["--device", "cuda:99"], "cuda:99")],
)
def test_bad_input_is_one_line(tmp_path, arguments, complaint):
    assert complaint in refused(run("scripts/benchmark.py", *arguments, cwd=tmp_path))
