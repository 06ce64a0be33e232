"""Command lines of the pages: run as a user does, or only checked against the options that exist."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib

from colotride.cli.arguments import parse
from colotride.cli.main import execute
from tests.docs.blocks import ROOT

SHELL = re.compile(r"[|<>;&`]|\$\(")


def run_line(line: str) -> int:
    """Run one line of a shell block in the working directory; ours in this process, since each would load torch anew.

    Returns:
        The exit code.
    """
    if line.startswith("colotride ") and not SHELL.search(line):
        words = [os.path.expandvars(word) for word in shlex.split(line)]
        return execute(words[1], words[2:])
    done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, timeout=100, check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def parses(line: str) -> str:
    """Check a line against the options of the program that it calls.

    Returns:
        The program, if it is one whose options we know.
    """
    words = [word for word in shlex.split(line) if not re.fullmatch(r"\w+=\S*", word)]
    match words:
        case ["colotride", name, *arguments]:
            options = importlib.import_module(f"colotride.cli.options.{name}")
            parse(getattr(options, name.capitalize()), arguments)
        case ["make", *targets]:
            subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, check=True)
        case ["pip", "install", *what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            for extra in re.findall(r"\[([\w,]+)\]", " ".join(what)):
                assert set(extra.split(",")) <= set(extras), line
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), line
        case ["ray", *arguments]:
            _check_ray(arguments, line)
        case ["aws" | "docker" | "kubectl" as program, *_]:
            # tests/cluster/ checks these against the services' own descriptions.
            return program
        case _:
            return ""
    return words[0]


def _check_ray(words: list[str], line: str) -> None:
    from ray.scripts.scripts import cli

    command, rest = cli, list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    rest = rest[: rest.index("--")] if "--" in rest else rest
    assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known, line
