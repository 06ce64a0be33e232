"""A search, and what one session of it has to work with."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from colotride.tune.engine import Resources
from colotride.tune.objective import TrialResources
from colotride.tune.plan import Plan


@dataclass(frozen=True)
class Session:
    """One start of a search: the first, or one that goes on with it."""

    plan: Plan
    folder: Path
    resources: Resources
    """Of one trial, and of one run of the verdict."""
    at_once: int
    """Trials that run side by side."""
    place: TrialResources
    console: Console

    @property
    def resume_command(self) -> str:
        """How to go on with the search."""
        return f"python tune/search.py --results {self.folder.parent} --resume {self.folder.name}"
