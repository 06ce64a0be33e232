"""Every code block of every page: run as it stands, or marked as needing what we lack, in which case it parses."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import colotride as ct
from colotride import presets
from tests.docs.blocks import PAGES, ROOT, RUNNABLE, blocks_of
from tests.docs.commands import parses, run_line
from tests.layouts import picture

pytestmark = pytest.mark.slow

NEEDS = {
    "minutes",
    "hours",
    "a browser",
    "a machine to itself",
    "a GPU",
    "two GPUs",
    "four GPUs",
    "the internet",
    "AWS",
    "Docker, Kubernetes",
    "ImageNet weights",
    "CUB-200-2011",
    "Stanford Online Products",
    "Fashion-MNIST",
    "the search above",
    "an interrupted search",
}
"""What a block may lack."""

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
MARKED = [block for block in BLOCKS if block.needs]
RUN = [page for page in PAGES if any(block.runs for block in blocks_of(page))]


def name_of(page):
    return str(page.relative_to(ROOT))


SHORT = {
    "training.epochs": 1,
    "data.pairs_per_epoch": 32,
    "data.pairs_per_batch": 16,
    "pgd.steps": 2,
    "evaluation.steps": 2,
    "evaluation.bootstrap": 20,
    "validation.queries": 8,
    "validation.steps": 1,
}
"""What the presets ask for while the pages run: their code is unchanged, and takes seconds."""


@pytest.fixture(scope="module", autouse=True)
def _short_runs():
    digits, photographs = presets._digits, presets._photographs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "_digits", lambda: digits().with_values(SHORT))
        patch.setattr(presets, "_photographs", lambda *given, **named: photographs(*given, **named).with_values(SHORT))
        yield


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A short run on digits, for the pages that speak of one without making it."""
    folder = tmp_path_factory.mktemp("first") / "runs" / "first"
    ct.train("digits", directory=folder, quick=True)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store of MLflow for all pages: each takes seconds to begin."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def place(tmp_path, monkeypatch, store):
    """A working directory with photographs of six classes; no data root and no cluster is named."""
    random = np.random.default_rng(0)
    for side, names in (("train", ("apple", "bread", "pear", "rice")), ("test", ("cherry", "dates"))):
        for label, name in enumerate(names):
            folder = tmp_path / "photos" / side / name
            folder.mkdir(parents=True)
            for index in range(6):
                picture(label + 10 * (side == "test"), 40, random).save(folder / f"{index}.png")
    for variable in ("COLOTRIDE_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run_in_order(page, place, request):
    blocks = blocks_of(page)
    text = "\n".join(block.text for block in blocks)
    if "runs/first" in text and 'directory="runs/first"' not in text and "--directory runs/first" not in text:
        shutil.copytree(request.getfixturevalue("first_run"), place / "runs" / "first")
    names = {"__name__": "page"}
    for block in blocks:
        if block.file:
            (place / block.file).write_text(block.text)
        elif not block.runs:
            continue
        elif block.language == "python":
            # Lines are those of the page, so that a failure names them.
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)
        else:
            for line in block.commands:
                assert run_line(line) == 0, f"{block.where}: {line}"


def test_every_block_has_a_language_and_a_known_mark():
    for page in PAGES:
        fences = re.findall(r"^ *```(\w*)", page.read_text(), re.MULTILINE)
        opened = fences[::2]
        assert all(opened), f"{page}: a block without a language"
        assert len(fences) == 2 * len(blocks_of(page)), f"{page}: a block that is not closed"
    for block in MARKED:
        unknown = [need for need in split(block.needs) if need not in NEEDS]
        assert unknown == [], f"{block.where}: {unknown}"
    for block in BLOCKS:
        assert not block.title or block.needs or block.file or block.title == "takes a minute", (
            f"{block.where}: {block.title}"
        )


def split(needs):
    return ["Docker, Kubernetes"] if needs == "Docker, Kubernetes" else needs.split(", ")


@pytest.mark.parametrize("block", MARKED, ids=lambda block: block.where)
def test_what_cannot_be_run_here_parses(block):
    if block.language == "python":
        ast.parse(block.text)
        return
    assert block.language == "sh"
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    seen = [word for line in block.commands if (word := parses(line))]
    assert seen, f"{block.where}: none of its commands is known"


def test_most_blocks_are_run():
    count = Counter("marked" if block.needs else "run" for block in BLOCKS if block.language in RUNNABLE)
    assert count["run"] > count["marked"]
    assert count["run"] > 40


def test_the_front_page_is_short():
    words = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL).split()
    assert len(words) <= 1000


def test_the_idioms_of_old_are_gone():
    banned = re.compile(r"what (that|it|they|this) (is|are) worth|to be believed|by turns|held still", re.IGNORECASE)
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        assert banned.findall(page.read_text()) == [], page


def test_every_shell_line_of_the_pages_can_be_split():
    for block in BLOCKS:
        for line in block.commands if block.language == "sh" else []:
            assert shlex.split(line, comments=True), block.where
