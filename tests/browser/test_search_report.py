"""The search's report in a real browser."""

import re

import pytest

from colotride.tune.report import write_report
from tests.browser.chromium import open_file
from tests.tune.searches import EPOCHS, SPACE, search

FIGURES = ("history", "front", "importance", "slices", "contour", "parallel", "epochs")

BRUSHED = """<script>
const plot = document.getElementById("plot-parallel");
const pale = () => plot.data.filter(trace => trace.opacity === 0.06).length;
plot.emit("plotly_selected", {points: [{curveNumber: 0}, {curveNumber: 3}]});
const during = pale();
plot.emit("plotly_deselect");
document.title = `${plot.data.length} traces, ${during} pale, then ${pale()}`;
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    study, rows = search()
    files = write_report(
        tmp_path_factory.mktemp("search"),
        title="a search",
        study=study,
        rows=rows,
        space=SPACE,
        objectives=["ARS"],
        epochs=EPOCHS,
        verdict=[{"model": "best", "ARS": "44.0"}],
    )
    return files[0], rows


def shown(html, name):
    """What the browser made of a figure."""
    start = html.index(f'<div id="plot-{name}"')
    return html[start : html.index("<h2>", start)]


def test_the_browser_draws_every_figure_and_has_nothing_to_complain_of(page):
    path, rows = page
    opened = open_file(path)
    assert opened.complaints == []
    for name in FIGURES:
        assert 'class="main-svg"' in shown(opened.html, name), name
    assert "canvas" not in shown(opened.html, "parallel"), "WebGL is not everywhere"
    assert shown(opened.html, "history").count('class="point"') == len(rows)
    legend = len({row.status for row in rows})
    assert shown(opened.html, "parallel").count('class="js-line"') == len(rows) + legend
    for name in ("pgd_steps", "attention_factor"):
        assert name in shown(opened.html, "importance")
    body = re.sub(r"<script.*?</script>", "", opened.html, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', body), "nothing is fetched from elsewhere"


def test_a_box_over_an_axis_keeps_the_lines_that_cross_it(page, tmp_path):
    path, rows = page
    head, _, tail = path.read_text().rpartition("</body>")
    (tmp_path / "brushed.html").write_text(head + BRUSHED + tail)
    opened = open_file(tmp_path / "brushed.html")
    assert opened.complaints == []
    count = len(rows) + 1
    assert f"<title>{count} traces, {count - 2} pale, then 0</title>" in opened.html, "the last one is the colour bar"
