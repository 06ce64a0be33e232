"""The site: built in strict mode as `make docs` does, and complete without the internet."""

import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built in a copy of the pages."""
    place = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "docs", place / "docs")
    shutil.copy(ROOT / "zensical.toml", place)
    for name in ("colotride", "tune", "cluster", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        (place / name).symlink_to(ROOT / name)
    runpy.run_path(str(place / "docs/generate.py"), run_name="__main__")
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "site"


class Resources(HTMLParser):
    """What a page loads, and its headings' names."""

    def __init__(self):
        super().__init__()
        self.loaded, self.names = [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names.add(given.get("id"))
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href") or "")


def read(page):
    parser = Resources()
    parser.feed(page.read_text())
    return parser


def test_make_docs_runs_the_same_commands():
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "python docs/generate.py" in told
    assert re.search(r"zensical build --strict", told)


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        away = [address for address in read(page).loaded if re.match(r"(https?:)?//", address)]
        assert away == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text()), style


def test_equations_are_mathml(site):
    text = (site / "explanation/method.html").read_text()
    assert text.count("<math") > 20
    assert "$$" not in text


def test_the_reference_has_every_public_name(site):
    import colotride

    names = read(site / "reference/python.html").names | read(site / "reference/extending.html").names
    documented = {name.rpartition(".")[2] for name in names if name}
    assert [name for name in colotride.__all__ if name not in documented and not name.startswith("__")] == []


def test_the_configuration_has_every_setting(site):
    text = (site / "reference/configuration.html").read_text()
    for setting in ("pgd.steps", "defense.stop_at", "training.epochs", "seed"):
        assert f"<code>{setting}</code>" in text


def test_the_commands_are_all_there(site):
    from colotride.cli.main import COMMANDS

    names = read(site / "reference/commands.html").names
    assert set(COMMANDS) <= names
