"""What the command lines share: where a configuration comes from, one-line errors, progress."""

import contextlib
import io
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro

from colotride.config import RunConfig, load_config
from colotride.devices import device_of as device_of
from colotride.errors import ColoTrideError, ConfigurationError
from colotride.presets import preset, with_data_root, with_defense
from colotride.settings import fraction

Command = TypeVar("Command")

EXIT_BAD_INPUT = 2


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command line: a `ColoTrideError` becomes one line on standard error and exit code 2.

    Args:
        main: takes the arguments, returns the exit code.
    """
    try:
        code = main(sys.argv[1:])
    except ColoTrideError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def base_config(arguments: Sequence[str], *, preset_option: str = "--preset") -> RunConfig:
    """The configuration that the options after it override field by field.

    `--config FILE`, or else the preset; then `--defense NAME` puts another defense in place, as its authors use it, and
    the environment variable COLOTRIDE_DATA says where the data lies.

    Raises:
        ConfigurationError: no such preset or defense, or an unusable file.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(preset_option, dest="preset", default="digits")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--defense")
    known, _ = parser.parse_known_args(list(arguments))
    config = load_config(known.config) if known.config else preset(known.preset)
    if known.defense and known.defense != config.defense.name:
        config = with_defense(config, known.defense)
    return with_data_root(config, os.environ.get("COLOTRIDE_DATA") or None)


def parse(command: type[Command], arguments: Sequence[str], default: Command) -> Command:
    """Parse arguments into a command object by its fields; `--help` prints them and exits with 0.

    Args:
        command: a dataclass; nested sections become dotted options (`--run.pgd.steps 8`).
        arguments: of the command line.
        default: the values of everything that is not given.

    Raises:
        ConfigurationError: an unknown option, a value that is not of its type or out of range, in one line.
    """
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_fraction_rule)
    complaints = io.StringIO()
    try:
        with registry, contextlib.redirect_stderr(complaints):
            return tyro.cli(
                command, args=list(arguments), default=default, config=(tyro.conf.AvoidSubcommands,), prog=sys.argv[0]
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ConfigurationError(one_line(complaints.getvalue())) from None


def one_line(box: str) -> str:
    """Flatten tyro's framed complaint into one line: what is wrong, and what may have been meant."""
    rows = [row.strip("│╭╮╰╯─ ") for row in box.splitlines()]
    text = " ".join(row for row in rows if row and not row.startswith("For full helptext"))
    text = re.sub(r"^(Value error|Unrecognized options|Parsing error|Required options)\s*", "", text)
    text = re.sub(r"\[type=[^\]]*input_value=(.*?), input_type=[^\]]*\]", r"(given: \1)", text)
    text = re.sub(r"For further information visit \S+", "", text)
    return " ".join(text.split()) + "; see --help"


def _fraction_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[float] | None:
    if info.type is not float:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda texts: fraction(texts[0]),
        is_instance=lambda value: isinstance(value, float | int),
        str_from_instance=lambda value: [f"{value:.6g}"],
    )
