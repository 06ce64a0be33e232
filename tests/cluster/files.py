"""The files of cluster/, read, and the versions that they must agree with."""

from pathlib import Path
from typing import Any

import yaml

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
ROOT = CLUSTER.parent


def read(name: str) -> dict[str, Any]:
    """The first document of a YAML file."""
    return next(iter(documents(name)))


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def pinned(package: str) -> str:
    """Its version in constraints.txt."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    return pins[package]
