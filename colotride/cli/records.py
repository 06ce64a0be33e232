"""A run's record in MLflow, where MLflow is installed; without it a run is not recorded."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from colotride.config import RunConfig

if TYPE_CHECKING:
    from colotride.tracking.runs import RunRecord


def begin_record(directory: Path, config: RunConfig, uri: str | None, console: Console) -> "RunRecord | None":
    """Begin or continue the record of a run's directory; without MLflow it is None, and one line says so.

    Args:
        directory: of the run.
        config: of the run.
        uri: the store; None for $MLFLOW_TRACKING_URI or the local one.
        console: where the line goes.
    """
    if not _installed(console):
        return None
    from colotride.tracking.runs import RunRecord

    return RunRecord.open(directory, config, uri)


def existing_record(directory: Path, console: Console) -> "RunRecord | None":
    """The record that a run's directory has, None where it has none or MLflow is not installed."""
    if not (directory / "mlflow").is_dir() or not _installed(console):
        return None
    from colotride.tracking.runs import RunRecord

    return RunRecord.existing(directory)


def _installed(console: Console) -> bool:
    # Importing MLflow takes seconds: it is looked for first, and imported only where it is wanted.
    try:
        found = find_spec("mlflow") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        console.print(
            "Not recorded in MLflow: it is not installed; pip install 'colotride[tracking]'",
            soft_wrap=True,
        )
    return found
