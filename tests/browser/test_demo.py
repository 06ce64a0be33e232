"""The demo in a real browser: pick, slide, attack, upload."""

import threading

import pytest
import torch

from colotride.api import train
from colotride.demo.comparison import open_runs
from colotride.demo.server import DemoServer
from tests.browser.driver import browser

pytestmark = pytest.mark.slow

SHORT = {"training.epochs": 3, "data.pairs_per_epoch": 128, "data.hold_out_validation": False, "pgd.steps": 4}

PLACES = "return [...document.querySelectorAll('[data-model=\"%d\"] .results.%s figure')].map(one => one.dataset.place)"
ANSWERED = "return document.body.dataset.answered === '%d'"
CHANGE = "const one = document.getElementById('%s'); one.value = '%s'; for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind))"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for name in ("natural", "act"):
        train("digits", defense=name, directory=folder / name, overrides=SHORT)
    runs = {"robust": folder / "act", "natural": folder / "natural"}
    comparison = open_runs(runs, most=400, device=torch.device("cpu"))
    with DemoServer(("127.0.0.1", 0), comparison, steps=8) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_attack_changes_what_the_natural_model_finds(page):
    with browser() as window:
        window.open(page.url)
        assert window.script("return document.getElementById('go').disabled"), "there is nothing to attack yet"
        window.script("document.querySelector('.pick').click()")
        window.wait(ANSWERED % 1)
        before = [window.script(PLACES % (model, "before")) for model in (0, 1)]
        assert before == [window.script(PLACES % (model, "after")) for model in (0, 1)]

        window.script(CHANGE % ("epsilon", "40"))
        assert window.script("return document.getElementById('size').textContent") == "40/255"
        window.script("document.getElementById('go').click()")
        window.wait(ANSWERED % 2)
        after = window.script(PLACES % (1, "after"))
        assert after != before[1]
        answer = page.comparison.answer(page.comparison.suggestions(1)[0], attack="ES", epsilon=40 / 255, steps=8)[1]
        assert after == [str(one.place) for one in answer.after]
        marks = window.script(
            "return [...document.querySelectorAll('[data-model=\"1\"] .results.after .mark')].map(one => one.textContent.trim())"
        )
        assert marks == ["✓" if one.correct else "✗" for one in answer.after]
        assert "moved by" in window.script("return document.querySelector('[data-model=\"1\"] .verdict').textContent")
        shown = "return [...document.images].filter(one => !one.closest('[hidden]') && !one.hidden).every(one => one.complete && one.naturalWidth > 0)"
        assert window.wait(shown)

        # Another attack and another size are shown at once.
        window.script(CHANGE % ("attack", "GTM"))
        window.wait(ANSWERED % 3)
        assert window.script("return !document.querySelector('.aim').hidden")
        window.script(CHANGE % ("epsilon", "0"))
        window.wait(ANSWERED % 4)
        assert window.script(PLACES % (1, "after")) == before[1]


UPLOAD = """
const canvas = document.createElement("canvas"); canvas.width = canvas.height = 32;
const pen = canvas.getContext("2d"); pen.fillStyle = "black"; pen.fillRect(0, 0, 32, 32); pen.fillStyle = "white"; pen.fillRect(12, 4, 6, 24);
canvas.toBlob((blob) => {
  const given = new DataTransfer(); given.items.add(new File([%s], "one.png", { type: "image/png" }));
  const field = document.getElementById("upload"); field.files = given.files; field.dispatchEvent(new Event("change"));
});
"""


def test_a_picture_of_ones_own_is_uploaded_and_attacked_and_one_that_is_none_is_refused(page):
    with browser() as window:
        window.open(page.url)
        window.script(UPLOAD % "blob")
        window.wait(ANSWERED % 1)
        before = window.script(PLACES % (1, "before"))
        assert len(before) == 8
        assert window.script("return !document.getElementById('known').hidden"), "its class can be told"
        label = window.script("return document.querySelector('#label option:last-child').value")
        window.script(CHANGE % ("label", label))
        window.wait(ANSWERED % 2)
        names = page.comparison.class_names()
        shown = "return [...document.querySelectorAll('[data-model=\"1\"] .results.before figure.right')].length"
        found = window.script(PLACES % (1, "before"))
        assert window.script(shown) == sum(page.comparison.labels[int(place)] == int(label) for place in found)
        assert int(label) in names
        window.script(CHANGE % ("epsilon", "60"))
        window.script("document.getElementById('go').click()")
        window.wait(ANSWERED % 3)
        assert window.script(PLACES % (1, "after")) != before

        window.script(UPLOAD % "'no picture'")
        line = window.wait("return document.querySelector('#status.failed')?.textContent")
        assert "cannot be decoded" in line


def test_a_phone_shows_it_without_scrolling_sideways(page):
    with browser(500, 900) as window:
        window.open(page.url)
        # Chromium's windows are at least 500 pixels wide.
        window.script("document.body.style.width = '390px'; document.querySelector('.pick').click()")
        window.wait(ANSWERED % 1)
        widest = "return Math.max(...[...document.querySelectorAll('body *')].map(one => one.getBoundingClientRect().right)) - document.body.getBoundingClientRect().left"
        assert window.script(widest) <= 391
