"""The report in a real browser."""

import re

import pytest
import torch

from colotride.evaluation.cases import find_cases
from colotride.evaluation.evaluator import evaluate_attacks, evaluate_clean
from colotride.evaluation.report import write_report
from colotride.evaluation.sanity import Check
from colotride.evaluation.settings import EvaluationSettings
from tests.browser.chromium import open_file, open_page
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel

CHECKS = [
    Check("epsilon 0 changes nothing", True, {"largest change of a pixel": 0.0}, "unused"),
    Check("gradients are not zero", False, {"share": 0.5}, "the attack does not know where to go"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    model, images = FlatModel(), toy_images()
    settings = EvaluationSettings(steps=4, epsilon=0.2, step_size=0.1, bootstrap=50)
    clean = evaluate_clean(model, images, settings, image_size=2, seed=0, device=torch.device("cpu"))
    evaluation = evaluate_attacks(clean, model, images)
    cases = find_cases(model, images, clean.plan, 3)
    path = tmp_path_factory.mktemp("report") / "report.html"
    others = {"theirs <b>": {"R@1": 12.3, "ERS": 45.6}}
    write_report(path, evaluation, title="ours & <co>", dataset="toy", others=others, cases=cases, checks=CHECKS)
    return path, evaluation, cases


def test_cases_are_real_ones(report):
    _, evaluation, cases = report
    labels = toy_images().labels
    for case in cases:
        assert case.label == int(labels[case.query])
        assert [one.right for one in case.before] == [one.label == case.label for one in case.before]
        where = int((evaluation.per_query["ES:D"]["query"] == case.query).nonzero())
        assert case.shift == pytest.approx(float(evaluation.per_query["ES:D"]["after"][where]), abs=1e-4)
        hit = float(evaluation.per_query["ES:R"]["after"][where]) == 100
        assert case.after[0].right == hit
        assert 0 <= case.perturbation.min() < case.perturbation.max() <= 1


def test_the_report_stands_alone_and_the_browser_has_nothing_to_complain_of(report):
    path, evaluation, cases = report
    page = open_file(path)
    assert page.complaints == []
    assert "ours &amp; &lt;co&gt;" in page.html
    assert "theirs &lt;b&gt;" in page.html
    assert f"{evaluation.ARS:.1f}" in page.html
    low, high = evaluation.intervals["ARS"]
    assert f"{low:.1f} to {high:.1f}" in page.html
    assert page.html.count('class="case"') == len(cases)
    assert page.html.count("<figure") == 3 * (2 + 5 + 5)
    assert page.html.count("<svg") == 2
    assert 'Gradient masking suspected: "gradients are not zero" fails' in " ".join(page.html.split())
    assert not re.search(r'(src|href)="(?!data:|#)', page.html), "nothing is fetched from elsewhere"


def test_a_browser_that_finds_an_error_says_so(tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<script>console.error('that is wrong'); undefined_function()</script>")
    complaints = open_page(broken.as_uri()).complaints
    assert any("that is wrong" in line for line in complaints)
    assert any("undefined_function" in line for line in complaints)
