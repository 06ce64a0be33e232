"""A real browser: what a page holds once its scripts have run, and what it complained of."""

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


def open_page(address: str, milliseconds: int = 3000) -> Page:
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
                address,
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
    return Page(done.stdout, re.findall(r"CONSOLE[:(].*", done.stderr))


def open_file(path: Path) -> Page:
    """Open a file from a folder that holds nothing else, so that whatever it wants beside it is missed."""
    with tempfile.TemporaryDirectory() as folder:
        alone = shutil.copy(path, folder)
        return open_page(Path(alone).as_uri())
