import json

import pytest

from colotride.config import save_config
from colotride.presets import preset
from scripts.benchmarks.robustness import DEFAULT, SCHEMES, measure_robustness, run_of
from tests.commands import refused, run
from tests.short_runs import SHORT


def base(**values):
    return preset("digits").with_values({**SHORT, "pgd.steps": 4, "evaluation.steps": 2, **values})


def test_every_scheme_is_a_valid_run_of_every_defense_and_covers_the_ball():
    for defense in ("colo-tride", "act", "hm"):
        for scheme in SCHEMES:
            pgd = run_of(base(), defense, scheme, seed=3).pgd
            assert pgd.epsilon == base().pgd.epsilon
            assert pgd.steps * pgd.step_size >= min(pgd.epsilon, 4 * base().pgd.step_size) * 0.999
    assert run_of(base(), "act", DEFAULT, seed=3).pgd.steps == 4, "not the 32 of its authors"
    assert run_of(base(), "act", DEFAULT, seed=3).seed == 3


@pytest.mark.slow
def test_cheaper_schemes_cost_less_and_what_was_measured_is_kept(tmp_path):
    said = []

    def measure(seeds):
        schemes = ["FGSM-RS", "constant ramp"]
        return measure_robustness(base(), ["act"], schemes, seeds, 16, tmp_path, on_run=said.append)

    one = measure(1)
    assert [row.scheme for row in one] == [DEFAULT, "FGSM-RS", "constant ramp"]
    assert one[2].scores == one[0].scores, "ACT has that ramp anyway, and is measured once"
    assert one[1].passes < 0.7 * one[0].passes
    assert one[1].difference is None, "one seed does not show the noise"
    default, single, _ = measure(2)
    assert "2 of 4 runs" in said
    assert single.seeds == 2
    assert single.difference.mean == pytest.approx(single.scores["ARS"] - default.scores["ARS"])
    assert 0 <= single.scores["ARS"] <= 100


@pytest.mark.slow
def test_the_command_shows_a_table_and_draws_a_picture(tmp_path):
    save_config(base(), tmp_path / "run.yaml")
    asked = ["--config", "run.yaml", "--defenses", "act", "--methods", "N-FGSM", "--seeds", "1", "--queries", "8"]
    done = run("scripts/benchmark.py", "robustness", *asked, "--workers", "1", "--output", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "act on digits, 1 seed" in done.stdout
    assert "N-FGSM" in done.stdout
    assert (tmp_path / "robustness.png").stat().st_size > 1000
    assert [row["scheme"] for row in json.loads((tmp_path / "robustness.json").read_text())["rows"]] == [
        DEFAULT,
        "N-FGSM",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--methods", "magic"], "magic"), (["--defenses", "magic"], "magic"), (["--config", "none.yaml"], "none.yaml")],
)
def test_bad_input_is_one_line(tmp_path, arguments, complaint):
    assert complaint in refused(run("scripts/benchmark.py", "robustness", *arguments, cwd=tmp_path))
