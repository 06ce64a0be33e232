"""Everything that decides a search, as one object that its folder holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from colotride.config import RunConfig
from colotride.errors import SearchError
from colotride.io import write_atomically
from colotride.settings import Settings
from colotride.tune.space import Space

SCORES = {"ars": "ARS", "ers": "ERS", "r1": "R@1", "map": "mAP"}
"""What can be maximised, by the name of the option: scores of the evaluation."""

SHOWN_SCORES = ("R@1", "mAP", "ERS", "ARS")
"""Scores that every trial reports."""

Sampler = Literal["tpe", "gp", "nsga2", "random"]
Stopping = Literal["asha", "median", "none"]

FILE = "search.json"


class Plan(Settings):
    """A search: what is varied, how it is judged, and for how long."""

    base: RunConfig
    """The run that the trials vary, with its validation part held out."""
    space: Space
    first: tuple[dict[str, Any], ...] = ()
    """Configurations to try before the sampler takes over."""
    trials: int = Field(default=16, ge=1)
    objectives: tuple[str, ...] = Field(default=("ARS",), min_length=1)
    """Scores to be maximised; several give a Pareto front."""
    sampler: Sampler = "tpe"
    stopping: Stopping = "asha"
    seed: int = Field(default=0, ge=0)
    """Of the sampler; every trial has the base's own seed."""
    max_cost: float | None = Field(default=None, gt=0)
    """Millions of image passes after which a trial ends; None for as many as its epochs take."""

    max_epochs: int | None = Field(default=None, ge=1)
    """Epochs of all trials together after which no new one is begun; None for as many as the trials take."""

    @model_validator(mode="after")
    def _one_number_to_stop_by(self) -> "Plan":
        if len(self.objectives) > 1 and self.stopping != "none":
            raise ValueError(f"stopping by {self.stopping} compares one number, not {', '.join(self.objectives)}")
        return self

    @property
    def epochs(self) -> int:
        """Of a trial that is trained to its end."""
        return self.base.training.epochs

    @property
    def grace(self) -> int:
        """Epochs that every trial gets before it may be stopped."""
        return max(1, self.epochs // 3)


def objectives_of(text: str) -> tuple[str, ...]:
    """Scores by the names of the option: "ars", or "r1,ars".

    Raises:
        SearchError: a name that is none, or one given twice.
    """
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in SCORES:
            raise SearchError(
                f"there is no objective {name!r}; choose among {', '.join(SCORES)}, or several such as r1,ars"
            )
    if len(set(names)) < len(names):
        raise SearchError(f"--objective {text} names an objective twice; name each once")
    return tuple(SCORES[name] for name in names)


def save_plan(plan: Plan, folder: Path) -> None:
    """Write a plan into its search's folder, atomically."""
    write_atomically(folder / FILE, (plan.model_dump_json(indent=2) + "\n").encode())


def load_plan(folder: Path) -> Plan:
    """The plan of a search that was begun.

    Raises:
        SearchError: the folder is none of a search, or its plan is damaged.
    """
    try:
        return Plan.model_validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        raise SearchError(f"there is no search in {folder} to resume; {_known(folder.parent)}") from None
    except (OSError, ValidationError) as error:
        first = " ".join(str(error).split())[:200]
        raise SearchError(f"{folder / FILE} cannot be read ({first}); start a new search") from None


def _known(results: Path) -> str:
    names = sorted(path.parent.name for path in results.glob(f"*/{FILE}"))
    return f"there are {', '.join(names)}" if names else f"{results} holds none"


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether no number is smaller and one is larger."""
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
