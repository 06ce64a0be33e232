"""Send to MLflow what could not be sent when it was measured, because the store was out of reach.

Examples:
    colotride sync runs/first
    colotride sync runs/search/*
"""

import json

from colotride.cli.options.sync import Sync
from colotride.errors import ConfigurationError
from colotride.tracking.export import DIRECTORY, JOURNAL, Tracker, default_uri


def main(command: Sync) -> int:
    """Send; 0 when the stores hold everything, 1 when something is missing."""
    if not command.folders:
        raise ConfigurationError("no directory to send: name those of runs or searches, such as runs/first")
    for folder in command.folders:
        if not (folder / DIRECTORY / JOURNAL).is_file():
            raise ConfigurationError(f"{folder} holds no record for MLflow; name the directory of a run or a search")
    missing = {str(folder): Tracker(default_uri(), folder).close(command.seconds) for folder in command.folders}
    if command.as_json:
        print(json.dumps(missing))
    else:
        for name, count in missing.items():
            print(f"{name}: {f'{count} entries are not in the store' if count else 'all sent'}")
    return 1 if any(missing.values()) else 0
