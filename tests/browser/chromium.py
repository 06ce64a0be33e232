"""A real browser: what a page holds once its scripts have run, and which errors they reported."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Page:
    """A page as the browser shows it."""

    html: str
    complaints: list[str]


def open_page(address: str, milliseconds: int = 3000, *options: str) -> Page:
    """Open an address in headless Chromium; skips the test, with the reason, where there is none."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                # Tables show only the rows that there is room for.
                "--window-size=1600,3000",
                f"--user-data-dir={profile}",
                f"--virtual-time-budget={milliseconds}",
                "--enable-logging=stderr",
                "--dump-dom",
                *options,
                address,
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
    return Page(done.stdout, re.findall(r"CONSOLE[:(].*", done.stderr))


def open_file(path: Path) -> Page:
    """Open a file from a folder that holds nothing else, so that every file it needs beside itself is missing."""
    with tempfile.TemporaryDirectory() as folder:
        alone = shutil.copy(path, folder)
        return open_page(Path(alone).as_uri())


def widest_content(path: Path, width: int) -> int:
    """How wide a file's page becomes in a window of this width, in pixels: more than the width means scrolling.

    Chromium's own windows are at least 500 pixels wide, so the page is shown in a frame.
    """
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(
            f'<iframe id="page" src="{path.as_uri()}" width="{width}" height="800" style="border:0"></iframe>'
            "<script>onload = () => { const root = document.getElementById('page').contentDocument.documentElement;"
            "document.title = `width ${root.scrollWidth}`; };</script>"
        )
        page = open_page(frame.as_uri(), 3000, "--allow-file-access-from-files", "--disable-web-security")
    found = re.search(r"<title>width (\d+)</title>", page.html)
    assert found, "the frame never loaded"
    return int(found[1])
