"""Fetch a public data set and unpack it to where training and evaluation look for it.

Examples:
    python scripts/download.py cub --data-root ~/data
    python scripts/download.py cars --data-root ~/data --mirror https://files.example.org/cars196
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from colotride.command_line import parse, run
from colotride.data.archives import ARCHIVES, DownloadableName
from colotride.data.download import download


@dataclass(frozen=True)
class Download:
    """Fetch a data set; an interrupted download goes on when the same command is given again."""

    dataset: tyro.conf.Positional[DownloadableName]
    """Which data set."""
    data_root: Annotated[Path, tyro.conf.arg(metavar="DIR")] = field(
        default_factory=lambda: Path(os.environ.get("COLOTRIDE_DATA") or "data")
    )
    """Folder that holds the data sets (default: $COLOTRIDE_DATA, or data)."""
    mirror: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Fetch the archives from below this address, under their own names, instead of their authors' servers."""
    keep_archives: bool = False
    """Leave the archives in the data root; without it they are deleted once they are unpacked."""


def main(arguments: Sequence[str]) -> int:
    """Fetch and unpack; the exit code is 0 when the data set is there."""
    command = parse(Download, arguments, Download(dataset=tyro.MISSING))
    console = Console(stderr=True)
    with _progress(console) as progress:
        task = progress.add_task("looking", total=None)

        def on_progress(what: str, done: int, total: int | None) -> None:
            if progress.tasks[task].description != what:
                progress.reset(task, description=what)
            progress.update(task, completed=done, total=total)

        fetched = download(
            command.dataset, command.data_root, on_progress, mirror=command.mirror, keep=command.keep_archives
        )
    place = command.data_root / ARCHIVES[command.dataset].folder
    console.print(f"{command.dataset} is {'' if fetched else 'already '}in {place}", highlight=False, soft_wrap=True)
    return 0


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


if __name__ == "__main__":
    run(main)
