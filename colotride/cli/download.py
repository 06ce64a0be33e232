"""Fetch a public data set, and decode its images once, to where training and evaluation look for them.

Examples:
    colotride download cub --data-root ~/data
    colotride download cars --data-root ~/data --mirror https://files.example.org/cars196
    colotride download sop --data-root ~/data --push s3://bucket/data
    colotride download folder --data-root ~/photos --verify
"""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from colotride.cli.options.download import Download
from colotride.data.archives import ARCHIVES, DownloadableName
from colotride.data.cache import CachedImages
from colotride.data.download import download
from colotride.data.splits import local_root, prepare_dataset
from colotride.presets import preset
from colotride.terminal import Terminal


def main(command: Download) -> int:
    """Fetch, unpack and decode; the exit code is 0 when the data set is there."""
    console = Terminal(stderr=True)
    size = {} if command.stored_size is None else {"data.stored_size": command.stored_size}
    if command.stored_size is not None and command.stored_size >= 1:
        size["data.image_size"] = command.stored_size
    settings = preset(command.dataset).with_values({"data.root": command.data_root, **size}).data
    public = next((name for name in ARCHIVES if name == command.dataset), None)
    if public is not None:
        _fetch(public, local_root(settings), command, console)
    for images in prepare_dataset(settings, verify=command.verify, address=command.push).values():
        if isinstance(images, CachedImages):
            _tell(console, f"{images.name}: {len(images):,} images are stored in {images.path}")
    if command.push:
        _tell(console, f"{command.dataset} is at {command.push}: give that as --data-root")
    return 0


def _fetch(dataset: DownloadableName, root: Path, command: Download, console: Console) -> None:
    with _progress(console) as progress:
        task = progress.add_task("looking", total=None)

        def on_progress(what: str, done: int, total: int | None) -> None:
            if progress.tasks[task].description != what:
                progress.reset(task, description=what)
            progress.update(task, completed=done, total=total)

        fetched = download(dataset, root, on_progress, mirror=command.mirror, keep=command.keep_archives)
    place = root / ARCHIVES[dataset].folder
    _tell(console, f"{dataset} is {'' if fetched else 'already '}in {place}")


def _tell(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)


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
