"""The search's report in a real browser."""

import re

import pytest

from colotride.tune.report import write_report
from tests.browser.chromium import open_file
from tests.tune.searches import SPACE, plan_of, search

pytestmark = pytest.mark.slow

CHARTS = ("history", "curves", "front", "importance", "slices", "contour", "parallel", "epochs")

MEASURED = """<script>
window.addEventListener("load", () => setTimeout(() => {
  const wide = [...document.querySelectorAll("body > *, .plotly-graph-div")].filter(one => one.getBoundingClientRect().right > 391);
  document.title = `${document.documentElement.scrollWidth} px, too wide: ${wide.map(one => one.id || one.tagName)}`;
}, 1500));
</script></body>"""
"""Says in the title whether anything reaches beyond a telephone's screen; what scrolls within itself does not."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    records = search()
    return write_report(tmp_path_factory.mktemp("search"), plan_of(), records)[0], records


def shown(html, name):
    """What the browser made of a chart."""
    start = html.index(f'<div id="plot-{name}"')
    return html[start : html.index("<h2>", start)]


def test_the_browser_draws_every_chart_and_has_nothing_to_complain_of(page):
    path, records = page
    opened = open_file(path)
    assert opened.complaints == []
    for name in CHARTS:
        assert 'class="main-svg"' in shown(opened.html, name), name
    finished = sum(record.status == "finished" for record in records)
    assert "canvas" not in shown(opened.html, "parallel"), "WebGL is not everywhere"
    assert shown(opened.html, "parallel").count('class="js-line"') >= finished
    for parameter in SPACE.parameters:
        assert parameter.name in shown(opened.html, "importance")
        assert parameter.name in shown(opened.html, "parallel")
    body = re.sub(r"<script.*?</script>", "", opened.html, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', body), "nothing is fetched from elsewhere"
