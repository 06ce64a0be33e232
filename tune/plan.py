"""All choices of a search, as one object that its folder keeps: a resumed search keeps every choice."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from colotride.config import RunConfig, load_config
from colotride.data.settings import absolute_root
from colotride.errors import ColoTrideError, SearchError
from colotride.io import write_atomically
from colotride.settings import NumberRange, Settings, number_range
from colotride.tune.parameters import Space, Values, same
from colotride.tune.records import CostLimit
from colotride.tune.seed_statistics import planned_looks
from colotride.tune.space import build_space

SCORES = {"ars": "ARS", "ers": "ERS", "r1": "R@1", "map": "mAP"}
"""What can be maximised, by the name of the option: scores of the evaluation."""

Sampler = Literal["tpe", "gp", "nsga2", "random"]
Stopping = Literal["asha", "median", "none"]

GRACE = 5
"""Every trial gets at least one of so many parts of its epochs before it may be stopped. On digits what is known after
a fifth of them predicts the test score as well as what is known after a half."""

LEAST_GRACE = 2
"""Epochs that every trial gets before it may be stopped, however few it has: after a single one the weights are still those
of its start. In the default space of Fashion-MNIST's table, of eight epochs, stopping after one lost what stopping after two
did not (docs/evidence.md)."""

FILE = "search.json"

COMMON = ("base", "space", "initial_points", "objectives", "sampler", "stopping", "seed", "max_cost", "deterministic")
"""Choices that never change once a search has begun: with others its trials could not be compared."""

BEST = "best.yaml"
CONFIGURATIONS = (BEST, "config.yaml")
"""Which file of a folder is an initial point, in this order: a search's best configuration, a run's own."""


class SearchPlan(Settings):
    """A search: what is varied, by which scores it is judged, for how long, and on which machines."""

    base: RunConfig
    """The run that the trials vary, with its validation part held out."""
    space: Space
    initial_points: tuple[dict[str, Any], ...] = ()
    """Values to try before the sampler takes over; the first are the base's own."""
    trials: int = Field(default=32, ge=1)
    """Configurations to try, the initial points included."""
    objectives: tuple[str, ...] = Field(default=("ARS",), min_length=1)
    """Scores to be maximised; several give a Pareto front."""
    sampler: Sampler = "tpe"
    stopping: Stopping = "asha"
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler; every trial has the base's own seed."""
    max_cost: float | None = Field(default=None, gt=0)
    """Millions of image passes after which a trial ends; None for as many as its epochs take."""
    max_epochs: int | None = Field(default=None, ge=1)
    """Epochs of all trials together after which no new one is begun; None for as many as the trials take."""
    race: int = Field(default=3, ge=0)
    """How many of the best trials are repeated with further seeds before the verdict, at most a quarter of all; 0 for
    none."""
    race_seeds: int = Field(default=2, ge=1)
    """Further seeds of the race."""
    verdict: bool = True
    """Whether the best configurations are retrained and evaluated on the test classes."""
    top: int = Field(default=1, ge=1)
    """How many of the best configurations are retrained, besides the default."""
    verdict_seeds: NumberRange = "3:6"
    """Seeds per configuration of the final evaluation; with a range, the difference is looked at after the first ones,
    and seeds are added as long as it is within the noise."""
    deterministic: bool = False
    """Whether the same seed gives the same search with several trials at once: sampler and pruner are told of a trial's
    end only when the trials that run beside it could not have ended differently."""
    concurrent: int | None = Field(default=None, ge=1)
    cpus_per_trial: int = Field(default=1, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """GPUs of a trial; auto measures what a trial needs of one."""
    workers_per_trial: int = Field(default=1, ge=1)
    device: str = "auto"
    storage: str | None = None
    """URI below which second copies of all checkpoints are kept."""
    tracking_uri: str | None = None
    """MLflow store; None for $MLFLOW_TRACKING_URI or the local one."""
    command: str = ""
    """The command that began the search, as it was typed."""

    @model_validator(mode="after")
    def _one_number_to_stop_by(self) -> "SearchPlan":
        if len(self.objectives) > 1 and self.stopping != "none":
            raise ValueError(f"stopping by {self.stopping} compares one number, not {', '.join(self.objectives)}")
        return self

    @property
    def epochs(self) -> int:
        """Of a trial that is trained to its end."""
        return self.base.training.epochs

    def fingerprints(self) -> dict[str, str]:
        """Digest of each choice that all trials of a search have in common, by its name."""
        plain = self.model_dump(mode="json", include=set(COMMON))
        plain["base"]["data"].pop("root")
        return {
            name: hashlib.sha256(json.dumps(plain[name], sort_keys=True).encode()).hexdigest()[:16] for name in COMMON
        }

    @property
    def contenders(self) -> int:
        """Of the race. Several objectives have no single best trial, and no race."""
        return min(self.race, self.trials // 4) if len(self.objectives) == 1 else 0

    @property
    def looks(self) -> list[int]:
        """After how many seeds the verdict looks at the differences."""
        return planned_looks(*number_range(self.verdict_seeds))

    @property
    def comparisons(self) -> int:
        """How many intervals the verdict may judge by: of each of its configurations and objectives, at each look."""
        return len(self.looks) * self.top * len(self.objectives)

    def cost_limit(self) -> CostLimit:
        """What one run may cost: a trial, its repetitions in the race, and the runs of the verdict."""
        return CostLimit(self.max_cost, self.base.validation.every)

    @property
    def grace(self) -> int:
        """Epochs that every trial gets before it may be stopped."""
        return max(LEAST_GRACE, self.epochs // GRACE)


def new_plan(
    run: RunConfig,
    *,
    groups: Sequence[str] = (),
    space_file: Path | None = None,
    start_from: Sequence[Path] = (),
    left_out: Collection[str] = (),
    objective: str = "ars",
    stopping: Stopping | None = None,
    first_share: float = 0.5,
    **choices: Any,
) -> SearchPlan:
    """Plan a search around a run.

    Args:
        run: what the trials vary.
        groups: see `build_space`.
        space_file: see `build_space`.
        start_from: see `initial_points`.
        left_out: see `build_space`.
        objective: "ars", or several such as "r1,ars".
        stopping: None for asha with one objective and none with several.
        first_share: share of the validation's budget in the first epoch, growing to all of it in the last one; with a
            `max_cost` it is 1, because trials then end at different epochs.
        choices: other fields of `SearchPlan`.

    Raises:
        SearchError: a choice that makes no sense, or a default outside the space.
    """
    share = 1.0 if choices.get("max_cost") is not None else first_share
    base = run.with_values({"data.hold_out_validation": True, "validation.first_share": share})
    # Ray's workers have other working directories.
    base = base.with_values({"data.root": absolute_root(base.data.root)})
    objectives = parse_objectives(objective)
    space = build_space(base, groups=groups, file=space_file, left_out=left_out)
    return changed(
        SearchPlan(base=base, space=space),
        initial_points=tuple(initial_points(space, base, start_from)),
        objectives=objectives,
        stopping=stopping or ("asha" if len(objectives) == 1 else "none"),
        **choices,
    )


def changed(plan: SearchPlan, **choices: Any) -> SearchPlan:
    """The same plan with other choices, checked as a whole.

    Raises:
        SearchError: a choice out of its range, named as the option of the command line.
    """
    try:
        return SearchPlan.model_validate(dict(plan) | choices)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "--" + ".".join(map(str, first["loc"])).replace("_", "-") if first["loc"] else "the search"
        given = f" {first['input']}" if first["loc"] else ""
        raise SearchError(f"{name}{given}: {first['msg'].removeprefix('Value error, ')}; see --help") from None


def parse_objectives(text: str) -> tuple[str, ...]:
    """Scores by the names of the option: "ars", or "r1,ars".

    Raises:
        SearchError: an unknown name, or one given twice.
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


def initial_points(space: Space, base: RunConfig, files: Sequence[Path]) -> list[Values]:
    """The values to try before the sampler takes over, without repetition.

    The first are the base's, which are the paper's. Where the space leaves one of them out, the nearest end of the
    range takes its place (of choices, the first). Of the files only the values of the space's parameters count;
    everything else is the base's.

    Args:
        space: of the search.
        base: the run that the trials vary.
        files: YAML configurations, folders of runs, or folders of searches, whose best configuration is taken.

    Raises:
        SearchError: a file that cannot be used, one with a value outside the space, or a search over more parameters.
    """
    points = [space.values_of(base, clip=True)]
    for file in files:
        try:
            path = _configuration_in(file)
            _same_space(space, path)
            point = space.values_of(load_config(path))
        except ColoTrideError as error:
            raise SearchError(f"--start-from {file}: {error}, or leave this file out") from None
        if not any(_equal(point, other) for other in points):
            points.append(point)
    return points


def save_plan(plan: SearchPlan, folder: Path) -> None:
    """Write a plan into its search's folder, atomically."""
    write_atomically(folder / FILE, (plan.model_dump_json(indent=2) + "\n").encode())


def load_plan(folder: Path) -> SearchPlan:
    """The plan of a search that was begun.

    Raises:
        SearchError: the folder holds no search, or its plan is damaged.
    """
    try:
        return SearchPlan.model_validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        names = sorted(path.parent.name for path in folder.parent.glob(f"*/{FILE}"))
        known = f"there are {', '.join(names)}" if names else f"{folder.parent} holds none"
        raise SearchError(f"there is no search in {folder} to resume; {known}") from None
    except (OSError, ValidationError) as error:
        first = " ".join(str(error).split())[:200]
        raise SearchError(f"{folder / FILE} cannot be read ({first}); restore it, or begin a new search") from None


def _configuration_in(file: Path) -> Path:
    if not file.is_dir():
        return file
    found = next((file / name for name in CONFIGURATIONS if (file / name).is_file()), None)
    if found is None:
        raise SearchError("the folder holds neither best.yaml nor config.yaml; give a search's or a run's")
    return found


def _same_space(space: Space, path: Path) -> None:
    """Refuse a former search's best configuration whose values this space would not try."""
    if path.name != BEST or not (path.parent / FILE).is_file():
        return
    former = {one.name for one in load_plan(path.parent).space.parameters}
    lacking = sorted(former - {one.name for one in space.parameters})
    if lacking:
        raise SearchError(
            f"that search varied {', '.join(lacking)} too, of which this one would keep the default; "
            "give the same --groups or --space"
        )


def _equal(one: Values, other: Values) -> bool:
    return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
