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
from colotride.tracking.export import DIRECTORY, JOURNAL, Tracker, default_uri


@dataclass(frozen=True)
class Sync:
    """Send what MLflow does not hold yet; each record goes to the store that it was started in."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Directories of runs or searches."""
    seconds: float = 30.0
    """How long to wait for a store that is out of reach."""
    json: bool = False
    """Print how many entries are missing, by directory, as JSON."""


def main(arguments: Sequence[str]) -> int:
    """Send; 0 when the stores hold everything, 1 when something is missing."""
    command = parse(Sync, arguments, Sync())
    if not command.folders:
        raise ConfigurationError("no directory to send: name those of runs or searches, such as runs/first")
    for folder in command.folders:
        if not (folder / DIRECTORY / JOURNAL).is_file():
            raise ConfigurationError(f"{folder} holds no record for MLflow; name the directory of a run or a search")
    missing = {str(folder): Tracker(default_uri(), folder).close(command.seconds) for folder in command.folders}
    if command.json:
        print(json.dumps(missing))
    else:
        for name, count in missing.items():
            print(f"{name}: {f'{count} entries are not in the store' if count else 'all sent'}")
    return 1 if any(missing.values()) else 0
