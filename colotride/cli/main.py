"""The command `colotride`: finds the subcommand, and turns what a user can correct into one line and exit code 2."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from colotride.cli.arguments import Options, parse
from colotride.disk import storage_error
from colotride.errors import ColoTrideError
from colotride.markdown import printable

COMMANDS = {
    "train": "train one model: COLO-TRIDE or a baseline",
    "evaluate": "attack a model: benign metrics, ten attacks, ERS and ARS",
    "search": "search for a better configuration",
    "tournament": "search every defense at the same cost, and compare the best",
    "interpolate": "make a model between a natural and a robust one",
    "embed": "embed the pictures of a folder",
    "index": "index the pictures of a folder, to search them",
    "query": "find the pictures that are most similar to one",
    "demo": "show in a browser what an attack does to the results",
    "push": "publish a model on the Hugging Face hub or in a folder",
    "download": "fetch a public data set",
    "reproduce": "reproduce a table or a figure of the paper",
    "leaderboard": "compare evaluated models: a table, or a static page",
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
    "huggingface_hub": "hub",
}
"""The extra that brings a package which the core does without."""

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
"""128 + SIGINT and 128 + SIGTERM."""

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
    with termination_as_interrupt() as terminated:
        code = _code_of(name, words)
    sys.exit(EXIT_TERMINATED if terminated and code == EXIT_INTERRUPTED else code)


def _code_of(name: str, words: Sequence[str]) -> int:
    try:
        try:
            code = execute(name, words)
        finally:
            _flush()
    except BrokenPipeError:
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
    except OSError as error:
        # Full, read-only, a file where a folder should be: nothing of it is a defect.
        found = storage_error(error)
        if found is None:
            raise
        print(f"error: {found}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    return code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        # Whoever reads the output, such as `head`, has seen enough, or the disk that it goes to is full; Python must
        # not flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise storage_error(error, Path("standard output")) or error from None


@contextmanager
def termination_as_interrupt() -> Iterator[list[int]]:
    """Let SIGTERM do within the block what Ctrl-C does; the list that is handed over then holds the signal."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            # A shell ignores Ctrl-C for what it runs in the background.
            raise KeyboardInterrupt
        handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, former)


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
