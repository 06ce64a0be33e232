"""The first trials of a search: the run's own values, then what a user knows to be good."""

from collections.abc import Sequence
from pathlib import Path

from colotride.config import RunConfig, load_config
from colotride.errors import ColoTrideError, SearchError
from colotride.tune.parameters import Values, same
from colotride.tune.space import Space

FILES = ("best.yaml", "config.yaml")
"""What a folder offers, in this order: a search's best configuration, a run's own."""


def start_points(space: Space, base: RunConfig, files: Sequence[Path]) -> list[Values]:
    """The configurations to try before the sampler takes over, each once.

    The first is the base, whose values are the paper's; where the user's space leaves one of them out, the nearest end
    of the range stands for it (of choices, the first). Of the others only the values of the space's parameters count:
    whatever else a former run had is the base's here.

    Args:
        space: of the search.
        base: the run that the trials vary.
        files: YAML configurations, folders of runs, or folders of searches, whose best one is taken.

    Raises:
        SearchError: a file that cannot be used, or one with a value outside the space.
    """
    points = [space.point_of(base, clip=True)]
    for file in files:
        point = _point_of(space, file)
        if not any(_equal(point, other) for other in points):
            points.append(point)
    return points


def _point_of(space: Space, file: Path) -> Values:
    try:
        return space.point_of(load_config(_configuration(file)))
    except ColoTrideError as error:
        raise SearchError(f"--start-from {file}: {error}, or leave this start out") from None


def _configuration(file: Path) -> Path:
    if not file.is_dir():
        return file
    found = next((file / name for name in FILES if (file / name).is_file()), None)
    if found is None:
        raise SearchError("the folder holds neither best.yaml nor config.yaml; give a search's or a run's")
    return found


def _equal(one: Values, other: Values) -> bool:
    return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
