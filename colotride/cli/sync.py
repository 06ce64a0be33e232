"""Send to MLflow what could not be sent when it was measured, because the store was out of reach.

Examples:
    python scripts/sync.py runs/first
    python scripts/sync.py runs/search/*
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from colotride.cli.options import parse
from colotride.errors import ConfigurationError
from colotride.tracking.export import FOLDER, Tracker, default_uri
from colotride.tracking.outbox import LINES


@dataclass(frozen=True)
class Sync:
    """Send what is left in the outboxes of runs and searches; each record goes to the store that it was begun in."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs or searches."""
    seconds: float = 30.0
    """How long to wait for a store that is out of reach."""
    json: bool = False
    """Print what is left by folder as JSON."""


def main(arguments: Sequence[str]) -> int:
    """Send; 0 when nothing is left, 1 when a store is still out of reach."""
    command = parse(Sync, arguments, Sync())
    if not command.folders:
        raise ConfigurationError("no folder to send: name those of runs or searches, such as runs/first")
    for folder in command.folders:
        if not (folder / FOLDER / LINES).is_file():
            raise ConfigurationError(f"{folder} holds no record for MLflow; name the folder of a run or a search")
    left = {str(folder): Tracker(default_uri(), folder).close(command.seconds) for folder in command.folders}
    if command.json:
        print(json.dumps(left))
    else:
        for name, count in left.items():
            print(f"{name}: {'all sent' if count == 0 else f'{count} entries are left'}")
    return 1 if any(left.values()) else 0
