"""A whole tournament as a user runs it: killed, repeated, and compared with one that nobody disturbed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient
from rich.console import Console

from colotride.tournaments import run as tournament_run
from colotride.tournaments.results import hypervolumes, match_rows
from colotride.tournaments.run import load_results
from colotride.tune.records import best_first
from tests.commands import environment, refused, run

QUICK = (
    "--dataset", "digits", "--defenses", "colo-tride", "act", "--trials", "2", "--finalists", "1", "--seeds", "2",
    "--run.training.epochs", "2", "--run.data.pairs-per-epoch", "96", "--run.evaluation.queries", "12",
    "--run.evaluation.steps", "2", "--steps", "2", "--concurrent", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tournament")
    done = run("tournament", *QUICK, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
def test_every_defense_is_judged_at_the_same_cost(undisturbed):
    folder, printed = undisturbed
    found = load_results(folder / "runs/tournament/digits")
    assert [(one.defense, one.trial) for one in found.finalists] == [
        ("colo-tride", 1),
        ("colo-tride", 2),
        ("act", 1),
        ("act", 2),
    ]
    for one in found.finalists:
        assert list(one.scores["ARS"]) == [0, 1]
        assert not one.ends
        # As an author uses it; ACT moves candidates in every batch and takes fewer of them.
        if one.trial == 1:
            assert one.costs[0] == pytest.approx(found.cost, rel=0.25)
        else:
            own = next(other for other in found.finalists if (other.defense, other.trial) == (one.defense, 1))
            assert one.costs[0] <= 1.25 * own.costs[0], "whatever the search has chosen"
    assert found.pairs["act"] < found.pairs["colo-tride"]
    assert [row["against"] for row in printed["matches"]] == ["act #1", "act #2"]
    assert printed["matches"] == match_rows(found.finalists, "colo-tride")
    assert set(hypervolumes(found.finalists, "act")) == {0, 1}
    text = found.report.read_text()
    assert printed["sentence"] in text
    assert "<svg" in text
    # It loads nothing from elsewhere; the picture's namespaces are names.
    assert not re.search(r'(?:src|href)="http', text)
    assert "| defense |" in (found.directory / "tournament.md").read_text()

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("colotride").experiment_id], max_results=1000)
    (parent,) = (
        one for one in runs if one.data.tags.get("kind") == "tournament" and "mlflow.parentRunId" not in one.data.tags
    )
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 8
    assert all("test/ARS" in one.data.metrics for one in children)
    kept = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert kept == {"results.json", "tournament.html", "tournament.md", "front.png"}


@pytest.mark.slow
def test_a_killed_tournament_goes_on_and_ends_with_the_same_numbers(undisturbed, tmp_path):
    folder, printed = undisturbed
    command = [sys.executable, "-m", "colotride", "tournament", *QUICK]
    killed = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    final = tmp_path / "runs/tournament/digits/final"
    deadline = time.monotonic() + 300
    while not list(final.glob("*/*/evaluation/evaluation.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in final.glob("*/*/evaluation/evaluation.json")}
    assert kept
    assert not (final.parent / "results.json").exists()
    other = run("tournament", *QUICK, "--trials", "3", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds a tournament with another trials" in other.stderr
    done = run("tournament", *QUICK, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finalists"] == printed["finalists"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    one, two = (json.loads((at / "runs/tournament/digits/results.json").read_text()) for at in (folder, tmp_path))
    assert one == two


def test_bad_input_is_refused_in_one_line(tmp_path):
    for arguments, line in (
        (("--defenses", "act"), "--defenses"),
        (("--defenses", "act", "nobody"), "nobody"),
        (("--trials", "0"), "--trials 0"),
        (("--cost", "0"), "--cost 0"),
        (("--run.training.epochs", "-1"), "epochs"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ):
        assert line in refused(run("tournament", *arguments, cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_defense_whose_trials_all_failed_competes_as_its_authors_use_it(undisturbed, tmp_path, monkeypatch):
    folder, _ = undisturbed
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    kept = tmp_path / "runs/tournament/digits"
    (kept / "results.json").unlink()
    plan = load_results(folder / "runs/tournament/digits").plan
    searched = tournament_run.execute

    def execute(search, folder, console):
        result = searched(search, folder, console)
        if folder.name.endswith("act"):
            failed = [record.with_end("collapsed", "too small") for record in result.trials]
            best_first(failed, ("R@1", "ARS"))
        return result

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tournament_run, "execute", execute)
    found = tournament_run.run_tournament(plan, kept, Console(quiet=True))
    assert [(one.defense, one.trial) for one in found.finalists] == [("colo-tride", 1), ("colo-tride", 2), ("act", 1)]
