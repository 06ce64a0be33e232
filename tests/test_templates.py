import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from colotride.templates import inline_svg, render


def test_pages_are_escaped_and_a_missing_value_is_an_error():
    values = {"title": "<b>mine</b>", "groups": [], "style": ""}
    page = render("colotride.leaderboard", "page.html.j2", **values)
    assert "&lt;b&gt;mine" in page
    assert "<b>mine" not in page
    with pytest.raises(UndefinedError, match="title"):
        render("colotride.leaderboard", "page.html.j2", groups=[], style="")


def test_filters_of_one_page_are_not_those_of_the_next(tmp_path, monkeypatch):
    package = tmp_path / "templated"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shout.md.j2").write_text("{{ word | shout }} & {{ word }}")
    monkeypatch.syspath_prepend(tmp_path)
    assert render("templated", "shout.md.j2", filters={"shout": str.upper}, word="<a>") == "<A> & <a>"
    assert render("templated", "shout.md.j2", filters={"shout": str.title}, word="b") == "B & b"


def test_a_figure_is_one_element_whose_text_is_text_and_always_the_same():
    def drawn():
        figure = Figure()
        figure.add_subplot().set_title("a title")
        return inline_svg(figure)

    assert drawn().startswith("<svg")
    assert "a title</text>" in drawn()
    assert drawn() == drawn()
