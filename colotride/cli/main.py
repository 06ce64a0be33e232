"""The command `colotride`: finds the subcommand, and turns what a user can correct into one line and exit code 2."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from colotride.cli.arguments import Options, parse
from colotride.errors import ColoTrideError
from colotride.markdown import printable

COMMANDS = {
    "train": "train one model: COLO-TRIDE or a baseline",
    "evaluate": "attack a model: benign metrics, ten attacks, ERS and ARS",
    "search": "search for a better configuration",
    "embed": "embed the pictures of a folder",
    "query": "find the pictures that are most similar to one",
    "download": "fetch a public data set",
    "reproduce": "reproduce a table or a figure of the paper",
    "leaderboard": "make a table of several evaluations",
    "sync": "send to MLflow what could not be sent before",
    "benchmark": "measure speed on this machine",
}
"""What each subcommand does; its code is loaded when it is called."""

EXTRAS = {
    "ray": "tune",
    "optuna": "tune",
    "mlflow": "tracking",
    "plotly": "report",
    "pandas": "report",
    "boto3": "cluster",
}
"""The extra that brings a package which the core does without."""

EXIT_BAD_INPUT = 2
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE, as a shell reports it."""


def main() -> NoReturn:
    """Run `colotride SUBCOMMAND ...` as the process's arguments say."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        print(overview(), end="")
        sys.exit(0)
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"colotride {version('colotride')}")
        sys.exit(0)
    run(arguments[0], arguments[1:])


def run(name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one subcommand and end the process with its exit code.

    Args:
        name: of the subcommand.
        arguments: after it; None for those of the process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            code = execute(name, words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has seen enough; Python must not flush into the pipe once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except ColoTrideError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = EXTRAS[package]
        line = (
            f"colotride {name} needs {package}, which is not installed; get it with: pip install 'colotride[{extra}]'"
        )
        print(f"error: {line}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def execute(name: str, arguments: Sequence[str]) -> int:
    """Read the arguments of a subcommand and do what they ask for.

    Its options are read before its code is imported, so that help and a mistyped option cost no import of torch.

    Returns:
        The exit code.

    Raises:
        ColoTrideError: there is no such subcommand, or its input is bad.
    """
    if name not in COMMANDS:
        raise ColoTrideError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    declared: type[Options] = getattr(importlib.import_module(f"colotride.cli.options.{name}"), name.capitalize())
    if "--help-all" in arguments:
        # The settings lie in modules that import torch.
        from colotride.cli.configuration import help_of_everything

        print(help_of_everything(declared, [word for word in arguments if word != "--help-all"]).rstrip())
        return 0
    options = parse(declared, arguments)
    code: int = importlib.import_module(f"colotride.cli.{name}").main(options)
    return code


def overview() -> str:
    """The help of `colotride` itself."""
    lines = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    return (
        "usage: colotride COMMAND [OPTIONS]\n\n"
        "Robust image retrieval: adversarial training with COLO-TRIDE, and attacks that measure it.\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n"
        "first steps:\n"
        "  colotride train --dataset digits --directory runs/first\n"
        "  colotride evaluate --model runs/first\n\n"
        "colotride COMMAND --help shows a command's options.\n"
    )
