"""All choices of a tournament, as one object that its folder keeps: a repeated call continues it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from colotride.config import RunConfig
from colotride.data.settings import absolute_root
from colotride.errors import ConfigurationError, SearchError
from colotride.io import write_atomically
from colotride.presets import with_defense
from colotride.registry import DEFENSES
from colotride.settings import Settings
from colotride.tune.plan import SearchPlan, new_plan
from colotride.tune.space import default_space, has_meaning

FILE = "tournament.json"

REFERENCE = "colo-tride"
"""The defense with which all others are compared."""

PERTURBATION = ("pgd_steps", "step_size_over_epsilon")
"""Parameters that no search varies: they would change what a pass buys, and the adversary that is trained against."""

ONE_DEFENSE = ("phases",)
"""Groups whose values are defenses of their own."""

OBJECTIVES = "r1,ars"

DefenseName = Annotated[str, AfterValidator(DEFENSES.check)]


class TournamentPlan(Settings):
    """A tournament: who competes on what, at which cost, and how the best are judged."""

    base: RunConfig
    """Data, network, radius, budget and evaluation that all defenses share."""
    defenses: tuple[DefenseName, ...] = Field(default=(REFERENCE, "act", "hm", "naive"), min_length=2)
    """Who competes."""
    steps: int | None = Field(default=None, ge=1)
    """PGD steps of every defense; None for those that its authors use."""
    cost: float | None = Field(default=None, gt=0)
    """Millions of image passes of every run; None for what the reference takes with the base's epochs."""
    trials: int = Field(default=16, ge=1)
    """Configurations that are tried of each defense."""
    finalists: int = Field(default=3, ge=1)
    """How many of each defense are retrained."""
    seeds: int = Field(default=3, ge=1)
    """Runs of each finalist."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the samplers."""

    @property
    def reference(self) -> str:
        """The defense with which all others are compared: COLO-TRIDE, or the first where it does not compete."""
        return REFERENCE if REFERENCE in self.defenses else self.defenses[0]

    def run_of(self, defense: str) -> RunConfig:
        """The run of a defense, with its authors' settings, before its pairs are fitted to the cost."""
        run = with_defense(self.base, defense)
        return run if self.steps is None else run.with_values({"pgd.steps": self.steps})

    def search_of(self, defense: str, pairs: int, **machines: Any) -> SearchPlan:
        """The search of one defense in its own space, for the front of R@1 and ARS.

        Args:
            defense: its name.
            pairs: in an epoch of every trial.
            machines: where the trials run: concurrent, cpus_per_trial, gpus_per_trial, device, tracking_uri.
        """
        run = self.run_of(defense).with_values({"data.pairs_per_epoch": pairs})
        groups = [name for name in default_space().groups if name not in ONE_DEFENSE and has_meaning(name, run)]
        return new_plan(
            run,
            groups=groups,
            left_out=PERTURBATION,
            objective=OBJECTIVES,
            trials=self.trials,
            seed=self.seed,
            race=0,
            verdict=False,
            **machines,
        )


def new_tournament(base: RunConfig, **choices: Any) -> TournamentPlan:
    """Plan a tournament.

    Args:
        base: what all defenses share.
        choices: other fields of `TournamentPlan`.

    Raises:
        ConfigurationError: a choice out of its range, named as the option of the command line, or a base with a
            defense whose own settings would reach the others.
    """
    if type(base.defense).recommended:
        raise ConfigurationError(
            f"the configuration is one of {base.defense.name}, whose authors' settings would reach the other defenses; "
            f"give a --config of {REFERENCE}, or --dataset"
        )
    base = base.with_values({"data.root": absolute_root(base.data.root)})
    try:
        plan = TournamentPlan(base=base, **choices)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise ConfigurationError(f"--{first['loc'][0]} {first['input']}: {message}; see --help") from None
    twice = [name for name in plan.defenses if plan.defenses.count(name) > 1]
    if twice:
        raise ConfigurationError(f"--defenses names {twice[0]} twice; name each once")
    return plan


def keep_plan(plan: TournamentPlan, folder: Path) -> None:
    """Write the plan into its folder, or check that the folder's is the same.

    Raises:
        SearchError: the folder holds another tournament, or a damaged one.
    """
    file, text = folder / FILE, plan.model_dump_json(indent=2) + "\n"
    if not file.exists():
        write_atomically(file, text.encode())
        return
    try:
        known = TournamentPlan.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = " ".join(str(error).split())[:200]
        raise SearchError(f"{file} cannot be read ({first}); restore it, or begin another tournament") from None
    given = plan.model_dump()
    other = [name for name, value in known.model_dump().items() if value != given[name]]
    if other:
        raise SearchError(
            f"{folder} holds a tournament with another {' and '.join(other)}; go on with the choices of its first call, "
            "or give another --results"
        )
