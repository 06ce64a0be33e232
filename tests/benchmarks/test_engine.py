import json

import pytest

from tests.commands import run

pytestmark = pytest.mark.slow


def test_the_engine_is_driven_and_a_study_is_filled(tmp_path):
    asked = ["engine", "--trials", "3", "--concurrent", "3", "--studies", "100", "--output", ".", "--json"]
    done = run("scripts/benchmark.py", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    driven, held = json.loads(done.stdout)["rows"]
    assert (driven["trials"], driven["at_once"]) == (3, 3)
    assert 0 < driven["start"] < driven["seconds"]
    assert 0 < driven["busy"] <= 1
    assert held["trials"] == 100
    assert 0 < held["report"] < 1
    assert 0 < held["open"] < 10
    assert held["journal_mib"] > 0.1
