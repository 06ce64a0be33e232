"""The architecture that the README draws: imports point downward, and the core knows none of the tools around it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = [
    ["errors", "settings", "atomic", "randomness"],
    ["geometry", "group"],
    ["losses", "mining", "folding", "models", "pgd", "optimisation"],
    ["data", "defenses", "health", "history", "checkpoint", "mirror"],
    ["evaluation"],
    ["foreign", "config", "presets", "run_folder", "runs"],
    ["training"],
    ["reproduction", "names", "outbox", "system_metrics", "registry"],
    ["delivery"],
    ["benchmarks", "tracking", "distributed", "ray_training", "command_line"],
]
"""Modules and packages of colotride/ from the ground up; one may know those of its own floor and below."""

GLUE = ("delivery", "distributed", "ray_training", "registry", "system_metrics", "tracking")
"""What may know Ray and MLflow."""

HEIGHT = {name: number for number, floor in enumerate(FLOORS) for name in floor}
FILES = sorted(
    path for path in (ROOT / "colotride").rglob("*.py") if path.name != "__init__.py" or path.parent.name != "colotride"
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    own = path.relative_to(ROOT / "colotride").parts[0].removesuffix(".py")
    for name in imported(path):
        first, *rest = name.split(".")
        assert first not in ("tune", "scripts", "tests"), f"{path} knows its caller {name}"
        if first == "colotride" and rest:
            assert HEIGHT[rest[0]] <= HEIGHT[own], f"{path} imports {name} from above"
        if own not in GLUE:
            assert first not in ("ray", "mlflow", "optuna"), f"{path} imports {name}"


def test_the_core_runs_without_the_tools_around_it():
    code = (
        "import sys, colotride.training, colotride.runs, colotride.evaluation.evaluator, colotride.command_line, "
        "colotride.reproduction.experiments; print(sorted({'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
