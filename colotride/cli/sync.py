"""Send to MLflow what could not be sent when it was measured, because the store was out of reach.

Examples:
    colotride sync runs/first
    colotride sync runs/search/*
"""

import json

from colotride.cli.options.sync import Sync
from colotride.errors import ConfigurationError
from colotride.tracking.export import FOLDER, Tracker, default_uri
from colotride.tracking.outbox import LINES


def main(command: Sync) -> int:
    """Send; 0 when nothing is left, 1 when a store is still out of reach."""
    if not command.folders:
        raise ConfigurationError("no folder to send: name those of runs or searches, such as runs/first")
    for folder in command.folders:
        if not (folder / FOLDER / LINES).is_file():
            raise ConfigurationError(f"{folder} holds no record for MLflow; name the folder of a run or a search")
    left = {str(folder): Tracker(default_uri(), folder).close(command.seconds) for folder in command.folders}
    if command.as_json:
        print(json.dumps(left))
    else:
        for name, count in left.items():
            print(f"{name}: {'all sent' if count == 0 else f'{count} entries are left'}")
    return 1 if any(left.values()) else 0
