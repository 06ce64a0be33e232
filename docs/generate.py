"""Writes the pages of the reference that the code decides: the configuration and the commands.

`make docs` runs it before the site is built; git ignores what it writes.
"""

import importlib
import types
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import griffe
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from colotride.cli import main
from colotride.cli.arguments import parser_of
from colotride.config import RunConfig
from colotride.registry import DEFENSES, Registry
from colotride.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"

CONFIGURATION = """# Configuration

A run is decided by one configuration, `colotride.config.RunConfig`. A preset names its values for a data set; a YAML
file, options such as `--run.pgd.steps 8`, or `overrides={"pgd.steps": 8}` in Python change them. Every run leaves its
whole configuration in `config.yaml`. A key that does not exist and a value out of range are errors.

Numbers may be written as fractions, such as `8/255`. The defaults below are those of the section; the presets of
`digits` and `fashion-mnist` choose smaller networks, images and runs.

This page is generated from the code.
"""

COMMANDS = """# Commands

`colotride COMMAND --help` shows the options that people use, and `--help-all` shows every setting. Options with a
prefix, such as `--run.pgd.steps`, are the settings of the [configuration](configuration.md). Bad input is refused in
one line with exit code 2; an interrupted command ends with exit code 130.

This page is generated from the code.
"""


def write() -> None:
    """Write both pages."""
    (REFERENCE / "configuration.md").write_text(configuration_page())
    (REFERENCE / "commands.md").write_text(commands_page())


def commands_page() -> str:
    """The help of every command, rare options included; the settings of a run have a page of their own."""
    rows = [COMMANDS]
    for name, purpose in main.COMMANDS.items():
        options = getattr(importlib.import_module(f"colotride.cli.options.{name}"), name.capitalize())
        text = parser_of(options, rare=True).format_help().rstrip()
        rows.append(f"## {name}\n\n{purpose[0].upper()}{purpose[1:]}.\n\n```text\n{text}\n```\n")
    return "\n".join(rows)


def configuration_page() -> str:
    """Every setting of a run, with its type, its default and what it means, section by section."""
    rows = [CONFIGURATION]
    for name, field in RunConfig.model_fields.items():
        kinds = sections(name, field)
        if not kinds:
            continue
        rows.append(f"## {name}\n")
        for kind in kinds:
            if len(kinds) > 1:
                rows.append(f"### {kind.model_fields['name'].default}\n")
            rows.append(table(name, kind))
    plain = [name for name, field in RunConfig.model_fields.items() if not sections(name, field)]
    rows.append("## Settings without a section\n")
    rows.append(table("", RunConfig, plain))
    return "\n".join(rows)


def sections(name: str, field: FieldInfo) -> list[type[Settings]]:
    """The kinds of settings that a field may hold: none, one, or those of every defense."""
    if name == "defense":
        return [defense.Settings for _, defense in DEFENSES.items()]
    kind = field.annotation
    return [kind] if isinstance(kind, type) and issubclass(kind, Settings) else []


def table(prefix: str, kind: type[Settings], names: list[str] | None = None) -> str:
    """A section's fields as a table, after the section's own line."""
    documented = documentation(kind)
    rows = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        if names is not None and name not in names:
            continue
        path = f"{prefix}.{name}" if prefix else name
        rows.append(f"| `{path}` | {values(field)} | {default(field)} | {documented.get(name, '')} |")
    head = "" if names is not None else f"{' '.join((kind.__doc__ or '').split())}\n\n"
    return head + "\n".join(rows) + "\n"


@cache
def package() -> griffe.Object:
    """The package as griffe reads it from the source."""
    read = griffe.load("colotride", search_paths=[ROOT])
    assert isinstance(read, griffe.Object)
    return read


def documentation(kind: type[Settings]) -> dict[str, str]:
    """What stands below each field in the source, the parents' fields included."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if part.__module__.startswith("colotride"):
            described = package()[f"{part.__module__.removeprefix('colotride.')}.{part.__name__}"]
            for name, attribute in described.members.items():
                if attribute.docstring is not None:
                    found[name] = " ".join(attribute.docstring.value.split()).replace("|", "\\|")
    return found


def values(field: FieldInfo) -> str:
    """The type of a field and its range, in words."""
    registries = [getattr(getattr(limit, "func", None), "__self__", None) for limit in field.metadata]
    names = [f"`{name}`" for registry in registries if isinstance(registry, Registry) for name in registry]
    kind = ", ".join(names) or described(field.annotation)
    signs = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
    limits = [
        f"{sign} {getattr(limit, type(limit).__name__.lower()):g}"
        for limit in field.metadata
        for cls, sign in signs.items()
        if isinstance(limit, cls)
    ]
    return ", ".join([kind, *limits])


def described(annotation: Any) -> str:
    """A type as a reader of YAML knows it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return described(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(described(part) for part in parts)
    if origin is tuple:
        return f"list of {described(parts[0])}"
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path", type(None): "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default(field: FieldInfo) -> str:
    """The default of a field as YAML has it."""
    value = field.default
    if field.is_required():
        return "none, it must be given"
    if isinstance(value, float):
        return f"`{fractional(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "`null`" if value is None else f"`{list(value) if isinstance(value, tuple) else value}`"


def fractional(value: float) -> str:
    """A number, as a fraction of the pixel range or of the epochs where it is one."""
    for denominator in (3, 255):
        numerator = value * denominator
        if value and value < 1 and abs(numerator - round(numerator)) < 1e-9 and f"{value:g}" != str(value):
            return f"{round(numerator)}/{denominator}"
    return f"{value:g}"


if __name__ == "__main__":
    write()
