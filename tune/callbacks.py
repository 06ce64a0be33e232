"""Whoever wants to hear of a search's trials: the display, MLflow."""

from typing import Any, Protocol, runtime_checkable

from colotride.tune.trials import TrialRow


@runtime_checkable
class TrialCallback(Protocol):
    """Told of everything that happens to a trial, in the driver's process."""

    def started(self, row: TrialRow) -> None:
        """Begin a trial, or go on with one."""

    def reported(self, row: TrialRow, result: dict[str, Any]) -> None:
        """Take the report of one epoch; after an interruption also of epochs that were reported before."""

    def ended(self, row: TrialRow) -> None:
        """Close a trial; its status says how it ended."""
