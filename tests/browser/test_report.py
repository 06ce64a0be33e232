"""The report in a real browser."""

import html
import re

import pytest
import torch

from colotride.data.base import InMemoryImages
from colotride.errors import ConfigurationError
from colotride.evaluation.attack_descriptions import DESCRIPTIONS
from colotride.evaluation.evaluator import evaluate_attacks, evaluate_clean
from colotride.evaluation.examples import retrieval_examples
from colotride.evaluation.report import write_report
from colotride.evaluation.results import Evaluation
from colotride.evaluation.sanity import Check
from colotride.evaluation.settings import EvaluationSettings
from tests.browser.chromium import open_file, open_page, widest_content
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel

pytestmark = pytest.mark.slow

CHECKS = [
    Check("epsilon 0 changes nothing", True, {"largest change of a pixel": 0.0}, "unused"),
    Check("gradients are not zero", False, {"share": 0.5}, "the attack does not know where to go"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    toy = toy_images()
    names = dict(enumerate(("Laysan Albatross", "<i>shrike</i>", "a_very_long_name_without_any_space_in_it")))
    model, images = FlatModel(), InMemoryImages("toy", toy.pixels(torch.arange(len(toy))), toy.labels, names)
    settings = EvaluationSettings(steps=4, epsilon=0.2, step_size=0.1, bootstrap=50)
    clean = evaluate_clean(model, images, settings, image_size=2, seed=0, device=torch.device("cpu"))
    evaluation = evaluate_attacks(clean, model, images)
    examples = retrieval_examples(model, images, clean.plan, 3)
    path = tmp_path_factory.mktemp("report") / "report.html"
    others = {"theirs <b>": {"R@1": 12.3, "ERS": 45.6}, **{f"other row {row}": {"R@1": 10.0 + row} for row in range(4)}}
    write_report(path, evaluation, title="ours & <co>", dataset="toy", others=others, examples=examples, checks=CHECKS)
    return path, evaluation, examples


def test_examples_are_real_ones(report):
    _, evaluation, examples = report
    labels = toy_images().labels
    for example in examples:
        assert example.label == int(labels[example.query])
        assert [one.correct for one in example.before] == [one.label == example.label for one in example.before]
        where = int((evaluation.per_query["ES:D"]["query"] == example.query).nonzero())
        assert example.shift == pytest.approx(float(evaluation.per_query["ES:D"]["after"][where]), abs=1e-4)
        hit = float(evaluation.per_query["ES:R"]["after"][where]) == 100
        assert example.after[0].correct == hit
        assert 0 <= example.perturbation.min() < example.perturbation.max() <= 1


def test_the_report_stands_alone_and_the_browser_has_nothing_to_complain_of(report):
    path, evaluation, examples = report
    page = open_file(path)
    assert page.complaints == []
    assert "ours &amp; &lt;co&gt;" in page.html
    assert "theirs &lt;b&gt;" in page.html
    assert f"{evaluation.ARS:.1f}" in page.html
    low, high = evaluation.intervals["ARS"]
    assert f"{low:.1f} to {high:.1f}" in page.html
    assert page.html.count('class="card example"') == len(examples)
    assert page.html.count("<img") == 3 * (2 + 5 + 5)
    assert 'Gradient masking suspected: "gradients are not zero" fails' in " ".join(page.html.split())
    assert not re.search(r'(src|href)="(?!data:|#)', page.html), "nothing is fetched from elsewhere"


def test_the_scores_come_first_and_every_number_is_explained_with_its_good_direction(report):
    path, evaluation, _ = report
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", path.read_text(), flags=re.DOTALL)
    text = " ".join(html.unescape(text).split())
    assert text.index("ERS ↑") < text.index("ARS ↑") < text.index("CA+ ↑")
    terms = []
    for about in DESCRIPTIONS:
        card = text[text.index(f"{about.column} {about.arrow} {about.name}") :]
        card = card[: card.index("in ERS") + 60]
        for what in (about.moves, about.goal, about.reported, f"{about.robust} is more robust"):
            assert what in card
        terms.append(float(re.search(r"counts ([-\d.]+) in ERS", card)[1]))
    assert sum(terms) / len(terms) == pytest.approx(evaluation.ERS, abs=0.05)


def test_curves_and_convergence_are_shown_where_they_were_measured(tmp_path, report):
    settings = EvaluationSettings(
        protocol="strong", steps=3, epsilon=[0.1, 0.2], norm="l2", step_size=0.1, bootstrap=20
    )
    clean = evaluate_clean(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))
    evaluation = evaluate_attacks(clean, FlatModel(), toy_images())
    write_report(tmp_path / "report.html", evaluation)
    page = open_file(tmp_path / "report.html")
    assert page.complaints == []
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.html)).split())
    assert "strong protocol" in text
    assert "L2 perturbations, ε = 0.2" in text
    assert "6 passes per attack" in text
    for point in evaluation.curve:
        assert f"{point.epsilon:g} {point.ERS:.1f} {point.ARS:.1f}" in text
    gap = evaluation.convergence.gap["ARS"]
    assert f"ARS {evaluation.convergence.strict['ARS']:.1f} {evaluation.ARS:.1f} {gap:.1f}" in text
    assert len(re.findall(r"<polyline", page.html)) == 4
    assert widest_content(tmp_path / "report.html", 390) <= 390
    assert "<polyline" not in report[0].read_text()


def test_classes_are_named(report):
    path, _, examples = report
    page = path.read_text()
    for example in examples:
        assert html.escape(example.class_name) in page
    assert any(found.class_name == "Laysan Albatross" for one in examples for found in (*one.before, *one.after))
    assert "class 3" in page, "a class without a name keeps its number"
    assert "<i>shrike" not in page


def test_a_phone_shows_the_report_without_scrolling_sideways(report):
    path, _, _ = report
    assert widest_content(path, 390) <= 390


def test_a_page_that_is_too_wide_is_found(tmp_path):
    wide = tmp_path / "wide.html"
    wide.write_text('<meta name="viewport" content="width=device-width"><div style="width:700px">wide</div>')
    assert widest_content(wide, 390) >= 700


def test_an_evaluation_without_the_values_of_its_images_has_no_report(report, tmp_path):
    _, evaluation, _ = report
    with pytest.raises(ConfigurationError, match=r"attacked\.parquet"):
        write_report(tmp_path / "report.html", Evaluation.from_dict(evaluation.to_dict()))


def test_a_browser_that_finds_an_error_says_so(tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<script>console.error('that is wrong'); undefined_function()</script>")
    complaints = open_page(broken.as_uri()).complaints
    assert any("that is wrong" in line for line in complaints)
    assert any("undefined_function" in line for line in complaints)
