"""The architecture that the README draws: imports point downward, and the core knows none of the tools around it."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = [
    [
        "errors",
        "names",
        "settings",
        "disk",
        "documents",
        "io",
        "locking",
        "randomness",
        "registry",
        "remote",
        "markdown",
        "templates",
        "terminal",
        "devices",
        "provenance",
    ],
    ["geometry", "distributed.shards", "pgd_settings", "step_graphs"],
    ["losses", "mining", "folding", "fine_tuning", "backbones", "models", "pgd", "training.optimizer"],
    ["data", "defenses", "training.health", "training.records", "training.checkpoint", "training.remote_copy"],
    ["evaluation"],
    ["exported_programs", "external_models", "embedder", "index", "testing"],
    ["config", "presets", "hub.address", "training.run_directory", "training.runs"],
    ["training"],
    ["api", "demo"],
    ["reproduction", "leaderboard", "hub"],
    ["tracking"],
    ["distributed"],
    ["tune"],
    ["tournaments"],
    ["cli", "tune.search"],
    ["__main__"],
]
"""Modules and packages of colotride/ from the ground up; one may know those of its own floor and below."""

TOOLS = ("ray", "mlflow", "optuna", "plotly")
TOOLS_OF = {
    "distributed": ["ray"],
    "tracking": ["mlflow"],
    "tune": ["ray", "optuna", "plotly"],
    "tournaments": [],
    "cli": [],
}
"""Which of the tools each package around the core may import; the core may import none."""

HEIGHT = {name: number for number, floor in enumerate(FLOORS) for name in floor}
FILES = sorted(
    path
    for path in (*(ROOT / "colotride").rglob("*.py"), *(ROOT / "colotride/tune").glob("*.py"))
    if path.name != "__init__.py" or path.parent.name != "colotride"
)


def imported(path):
    """Names of what a file imports, dotted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                f"{node.module}.{alias.name}" if node.module == "colotride" else node.module for alias in node.names
            )


def height(name):
    """The floor of a dotted name below colotride: that of its longest prefix which has one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in HEIGHT:
            return HEIGHT[".".join(parts[:length])]
    raise AssertionError(f"{name} stands on no floor; add it to FLOORS and to the README's map")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    own = ".".join(path.relative_to(ROOT / "colotride").with_suffix("").parts)
    for name in imported(path):
        first, _, rest = name.partition(".")
        assert first not in ("tune", "scripts", "tests"), f"{path} knows its caller {name}"
        if first == "colotride" and rest:
            assert height(rest) <= height(own), f"{path} imports {name} from above"
        allowed = TOOLS_OF.get(own.partition(".")[0], [])
        assert first not in TOOLS or first in allowed, f"{path} imports {name}"


@pytest.mark.slow
def test_the_core_runs_without_the_tools_around_it():
    code = (
        "import sys, colotride.api, colotride.testing.defenses, colotride.cli.configuration, "
        f"colotride.reproduction.experiments; print(sorted({set(TOOLS)} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def edges():
    """Which modules of colotride/ each of them imports, anywhere in its text."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    for module, path in modules.items():
        yield module, {name for name in imported(path) if name in modules and name != module}


def test_no_module_imports_itself_in_a_circle():
    tuple(TopologicalSorter(dict(edges())).static_order())
