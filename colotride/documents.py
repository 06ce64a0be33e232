"""YAML and JSON from files that anybody may have written: whatever they hold, a failure is one line."""

import json
from pathlib import Path
from typing import Any

import yaml

from colotride.errors import ColoTrideError, ConfigurationError
from colotride.io import read_file

LARGEST_DEPTH = 64
"""Sections within sections that a document may have."""


def read_yaml(path: Path, what: str, error: type[ColoTrideError] = ConfigurationError) -> Any:
    """The plain values of a YAML file.

    Args:
        path: of the file.
        what: what it is, for the message: "configuration", "space".
        error: to be raised.

    Raises:
        ColoTrideError: of the given kind; it names the file, and the line where there is one.
    """
    text = _text(path, what, error, "YAML")
    try:
        _check_depth(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise error(f"{what} {path} is not YAML: {' '.join(str(problem).split())}") from None
    except (RecursionError, ValueError) as problem:
        # Dates that do not exist are a ValueError.
        raise error(f"{what} {path} is not YAML that can be read: {_reason(problem)}") from None


def read_json(path: Path, what: str, error: type[ColoTrideError] = ConfigurationError) -> Any:
    """The plain values of a JSON file; arguments and errors are those of `read_yaml`."""
    text = _text(path, what, error, "JSON")
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as problem:
        raise error(f"{what} {path} is not JSON: {_reason(problem)}") from None


def _text(path: Path, what: str, error: type[ColoTrideError], form: str) -> str:
    try:
        return read_file(path).decode()
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{what} {path} cannot be read ({problem}); give the path of a {form} file") from None


def _check_depth(text: str) -> None:
    """Refuse nesting before the parser, whose recursion is as deep as the document, comes to it.

    Raises:
        ValueError: with the line.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > LARGEST_DEPTH:
                raise ValueError(f"more than {LARGEST_DEPTH} levels{_line(event)}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _reason(problem: BaseException) -> str:
    return "it is nested too deeply" if isinstance(problem, RecursionError) else " ".join(str(problem).split())


def _line(event: yaml.Event) -> str:
    return "" if event.start_mark is None else f" in line {event.start_mark.line + 1}"
