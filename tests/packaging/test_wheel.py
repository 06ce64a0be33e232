"""What `pip install colotride` brings: built, installed in a clean environment, and run there.

The environment holds colotride's wheel alone. The packages that it needs are those of the environment of the tests, seen
through a .pth file, because installing torch again for a test would take minutes; what is an extra is hidden where the
core is shown to do without it.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.commands import ROOT

pytestmark = pytest.mark.slow

EXTRAS = ("ray", "mlflow", "optuna", "plotly", "boto3")

BLOCKER = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Absent())
"""
"""Makes the extras look as if they were not installed; `importlib.util.find_spec` is answered by an error, too."""

API = """
import sys, colotride as ct
run = ct.train("digits", defense="natural", directory="run", epochs=1, quick=True, device="cpu")
result = ct.evaluate(run, queries=8, steps=1)
assert 0 <= result.ARS <= 100
loaded = set(sys.modules) & {"ray", "mlflow", "optuna", "plotly"}
assert not loaded, loaded
print(ct.__file__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the sdist, and the wheel that is made from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of programs of an environment in which the wheel is installed, without constraints."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = call(*command, cwd=home)
    assert done.returncode == 0, done.stderr
    # As a plain entry of the path: its own .pth files, the editable colotride among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


@pytest.fixture(scope="module")
def blocked(tmp_path_factory):
    """Folder whose `sitecustomize` hides the extras."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return folder


def call(program, *arguments, cwd, path=None):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW", "COLOTRIDE"))}
    environment = kept | {"OMP_NUM_THREADS": "1"} | ({} if path is None else {"PYTHONPATH": str(path)})
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_is_the_package_with_the_search_and_its_files_and_nothing_beside_it(wheel):
    names = names_in(wheel)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"colotride"}
    packed = {name for name in names if name.startswith("colotride/")}
    tracked = subprocess.run(
        ["git", "ls-files", "colotride", "tune"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {f"colotride/{name}" if name.startswith("tune/") else name for name in tracked}
    assert packed == {name for name in wanted if (ROOT / name).is_file()}


def test_the_sdist_holds_the_same_package(built, wheel):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name for name in names_in(wheel) if name.startswith("colotride/")} <= inside


def test_the_metadata_names_versions_the_command_and_the_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(metadata).decode())
    versions = [line.rpartition(" ")[2] for line in about.get_all("Classifier") if "Python :: 3." in line]
    assert versions == ["3.11", "3.12", "3.13"]
    assert {"tune", "tracking", "report", "cluster", "all"} <= set(about.get_all("Provides-Extra"))
    core = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert core
    assert not [line for line in core if line.startswith(EXTRAS)]


def test_the_command_and_the_api_run_from_the_wheel(installed, tmp_path):
    done = call(installed / "colotride", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.partition(" ")[0]) == (0, "colotride"), done.stderr
    done = call(installed / "python", "-c", API, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.parent), "not the checkout"
    done = call(
        installed / "colotride", "evaluate", "--model", "run", "--queries", "8", "--steps", "1", "--json", cwd=tmp_path
    )
    assert json.loads(done.stdout)["queries"] == 8, done.stderr
    done = call(installed / "colotride", "benchmark", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "the benchmarks are part of the repository" in done.stderr


def test_the_core_needs_no_extra_and_names_the_one_that_a_command_lacks(installed, blocked, tmp_path):
    asked = ("train", "--quick", "--epochs", "1", "--defense", "natural", "--directory", "first", "--device", "cpu")
    done = call(installed / "colotride", *asked, cwd=tmp_path, path=blocked)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pip install 'colotride[tracking]'") == 1
    done = call(
        installed / "colotride",
        "evaluate",
        "--model",
        "first",
        "--queries",
        "8",
        "--steps",
        "1",
        "--json",
        cwd=tmp_path,
        path=blocked,
    )
    assert json.loads(done.stdout)["queries"] == 8, done.stderr
    done = call(installed / "python", "-c", API, cwd=tmp_path, path=blocked)
    assert done.returncode == 0, done.stderr
    for command, extra in (
        (("search", "--dataset", "digits"), "tune"),
        (("train", "--workers", "2"), "tune"),
        (("evaluate", "--model", "first", "--workers", "2"), "tune"),
        (("reproduce", "table1"), "tune"),
        (("sync", "first"), "tracking"),
        (("evaluate", "--model", "models:/net/1", "--dataset", "digits"), "tracking"),
    ):
        done = call(installed / "colotride", *command, cwd=tmp_path, path=blocked)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 2, (command, done.stderr)
        assert last.startswith("error: "), (command, done.stderr)
        assert f"pip install 'colotride[{extra}]'" in last, (command, done.stderr)
        assert "Traceback" not in done.stderr
