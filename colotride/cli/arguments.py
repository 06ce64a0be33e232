"""From the arguments of a command to one validated object: argparse reads the words, pydantic checks the values.

A command declares its options as the fields of an `Options` class in `colotride/cli/options/`; nothing here or there
imports torch, so that `--help` appears at once.
"""

import argparse
import difflib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from colotride.errors import ConfigurationError
from colotride.markdown import printable

WIDTH, COLUMN = 100, 29
"""Characters of a line of help, and where its explanations begin."""

SETTINGS = "--run."
"""Begins the options that set one value of the run's configuration: --run.pgd.steps 8."""

LONGEST_PART = 255
"""Bytes of the name of a file or folder."""

METAVARS = {int: "N", float: "X", Path: "PATH", str: "NAME"}


@dataclass(frozen=True)
class Option:
    """How a field appears on the command line.

    A switch that is on by default appears as `--no-NAME`, and its help says what that does.
    """

    group: str
    """Heading in the help."""
    metavar: str | None = None
    """What stands for the value; None for what its type suggests."""
    positional: bool = False
    """The value stands alone, without the option's name."""
    rare: bool = False
    """Only --help-all shows it."""
    alias: str | None = None
    """Another name that is understood, and not shown."""
    name: str | None = None
    """The option's name; None for the field's with dashes."""


class Options(BaseModel):
    """Base of what a command declares: fields with an `Option` in their annotation, and a docstring each."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    command: ClassVar[str]
    """What follows `colotride` on the command line."""
    examples: ClassVar[tuple[str, ...]] = ()
    """Arguments of calls that the help shows."""


class SettingsOptions(Options):
    """Base of commands that also take every setting of a run, as `--run.SECTION.NAME VALUE`."""

    lists_settings: ClassVar[bool] = False
    """Whether `--help-all` lists them."""

    settings: dict[str, tuple[str, ...]] = {}
    """Words by dotted name; none for a switch."""


Command = TypeVar("Command", bound=Options)


def parse(command: type[Command], arguments: Sequence[str]) -> Command:
    """Read and check the arguments of a command; `--help` and `--help-all` print and exit with 0.

    Args:
        command: the class of its options.
        arguments: the words after the command's name.

    Raises:
        ConfigurationError: an unknown option, or values that are not of their type or out of range, in one line.
    """
    words: list[str] = list(arguments)
    for word in words:
        _check_word(word)
    settings: dict[str, tuple[str, ...]] = {}
    if "--help" in words or "-h" in words:
        print(parser_of(command, rare=False).format_help().rstrip())
        raise SystemExit(0)
    if issubclass(command, SettingsOptions):
        words, settings = _without_settings(words)
    parser = parser_of(command, rare=True)
    read, unknown = parser.parse_known_args(_joined(words))
    if unknown:
        raise ConfigurationError(_unknown(command, unknown[0].partition("=")[0]))
    values = vars(read) | ({"settings": settings} if settings else {})
    try:
        return command.model_validate(values)
    except ValidationError as error:
        lines = [_complaint(command, one) for one in error.errors(include_url=False)]
        raise ConfigurationError(f"{'; '.join(lines)}; see --help") from None


def parser_of(command: type[Options], *, rare: bool) -> argparse.ArgumentParser:
    """The parser of a command, which also writes its help.

    Args:
        command: the class of its options.
        rare: whether the help shows the rare options, and explanations beyond their first sentence.
    """
    call = f"colotride {command.command}"
    shown = [f"  {call} {example}" for example in command.examples]
    more = f"{call} --help-all lists every option" + (
        " and every setting of a run." if issubclass(command, SettingsOptions) and command.lists_settings else "."
    )
    positional = "".join(
        f"{_metavar(name, field, option)} " for name, field, option in _declared(command) if option.positional
    )
    parser = _Parser(
        prog=call,
        usage=f"{call} {positional}[OPTIONS]",
        description=" ".join((command.__doc__ or "").partition("\n\n")[0].split()),
        epilog="\n".join([*(["examples:", *shown] if shown else []), *([] if rare else [more])]),
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=COLUMN),
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, field, option in _declared(command):
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        _add(groups[option.group].add_argument, name, field, option, rare)
    return parser


def explained(field: FieldInfo, *, whole: bool, default: Any) -> str:
    """The help of one field: its description, and its default where the description does not say what None means."""
    text = " ".join((field.description or "").split())
    if not whole:
        text = re.split(r"(?<!\.)\.(?= |$)", text)[0]
    text = text.removesuffix(".")
    if default is PydanticUndefined or default in (None, (), "") or isinstance(default, bool) or "(default" in text:
        return text
    several = isinstance(default, tuple)
    value = f"{default:g}" if isinstance(default, float) else " ".join(map(str, default)) if several else str(default)
    return f"{text} (default: {value})"


def metavar_of(field: FieldInfo) -> str | None:
    """What stands for a field's value in the help: its choices, or a letter for a number; None where nothing suits."""
    for kind in _kinds(field.annotation):
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
        if kind in METAVARS:
            return METAVARS[kind]
    return None


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of an annotation, whatever unions and annotations are around them."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for inner in get_args(annotation):
            yield from _kinds(inner)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message.removeprefix('argument ')}; see --help")


def _declared(command: type[Options]) -> list[tuple[str, FieldInfo, Option]]:
    found = []
    for name, field in command.model_fields.items():
        found += [(name, field, option) for option in field.metadata if isinstance(option, Option)]
    return found


def _add(add: Callable[..., Any], name: str, field: FieldInfo, option: Option, rare: bool) -> None:
    several = get_origin(field.annotation) is tuple
    text = explained(field, whole=rare, default=field.default).replace("%", "%%")
    kind: dict[str, Any] = {"help": argparse.SUPPRESS if option.rare and not rare else text}
    metavar = _metavar(name, field, option)
    if option.positional:
        count = "*" if several else None if field.is_required() else "?"
        add(name, nargs=count, metavar=metavar, **kind)
        return
    if field.annotation is bool and field.default:
        add("--no-" + name.replace("_", "-"), dest=name, action="store_false", **kind)
        kind = {"help": argparse.SUPPRESS}
    if field.annotation is bool:
        kind["action"] = "store_true"
    else:
        kind["metavar"] = metavar
        kind |= {"nargs": "+", "action": "extend"} if several else {}
    add(_name(name, option), dest=name, **kind)
    if option.alias:
        add(option.alias, dest=name, **kind | {"help": argparse.SUPPRESS})


def _metavar(name: str, field: FieldInfo, option: Option) -> str:
    return option.metavar or metavar_of(field) or name.upper()


def _name(field: str, option: Option) -> str:
    if option.positional:
        return (option.metavar or field).upper()
    return option.name or "--" + field.replace("_", "-")


def _check_word(word: str) -> None:
    """Refuse what can be neither a path nor a name, whatever it is given for."""
    try:
        longest = max(len(part.encode()) for part in word.split("/"))
    except UnicodeEncodeError:
        raise ConfigurationError(f"{printable(word)} is not UTF-8 text; rename what it names") from None
    if longest > LONGEST_PART:
        raise ConfigurationError(f"{word[:100]}... is too long: no file or folder has a name of {longest} bytes")


def _joined(words: Sequence[str]) -> list[str]:
    """Tie a negative value to its option: argparse takes "-1/255" for another option."""
    joined: list[str] = []
    for word in words:
        negative = len(word) > 1 and word[0] == "-" and word[1] != "-"
        if negative and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _without_settings(words: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    others: list[str] = []
    settings: dict[str, tuple[str, ...]] = {}
    name = ""
    for word in words:
        if word.startswith(SETTINGS):
            name, given, value = word.removeprefix(SETTINGS).partition("=")
            settings[name] = (value,) if given else ()
        elif name and not word.startswith("--"):
            settings[name] += (word,)
        else:
            name = ""
            others.append(word)
    return others, settings


def _complaint(command: type[Options], error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not error["loc"]:
        return message
    (shown,) = (_name(name, option) for name, _, option in _declared(command) if name == error["loc"][0])
    return f"{shown} is missing" if error["type"] == "missing" else f"{shown} {error['input']}: {message}"


def _unknown(command: type[Options], word: str) -> str:
    near = difflib.get_close_matches(word, [_name(name, option) for name, _, option in _declared(command)], n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{'unknown option' if word.startswith('-') else 'unexpected argument'} {word}{meant}; see --help"
