"""The page that explains the evaluation says what the code does."""

import re
from pathlib import Path

from colotride.evaluation.attack_descriptions import DESCRIPTIONS
from colotride.evaluation.attack_drawings import SCENES
from colotride.evaluation.scores import ATTACK_COLUMNS
from scripts.draw_attacks import draw

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "explanation" / "evaluation.md").read_text()


def test_every_number_is_described_and_drawn():
    assert tuple(about.column for about in DESCRIPTIONS) == ATTACK_COLUMNS
    assert {about.drawing for about in DESCRIPTIONS} == set(SCENES)


def test_the_page_has_the_reports_words():
    for about in DESCRIPTIONS:
        cells = (about.column, about.name, about.moves, about.goal, about.reported, f"{about.arrow} {about.robust}")
        assert f"| {' | '.join(cells)} |" in PAGE


def test_the_worked_example_is_right():
    terms = [
        float(value)
        for value in re.findall(r"^\| [A-Z:+-]+ \| [\d.]+ ?%? \| [^|]+ \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    ]
    assert len(terms) == 10
    assert f"{sum(terms) / 10:.1f}" in re.search(r"\| \*\*ERS\*\* .*", PAGE)[0]


def test_the_drawing_is_the_scripts():
    assert (DOCS / "images" / "attacks.svg").read_text() == draw()
