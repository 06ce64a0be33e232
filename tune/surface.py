"""An objective over two parameters, interpolated between the trials."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import griddata
from scipy.spatial import QhullError

from colotride.tune.parameters import AnyParameter, Choice
from colotride.tune.points import ENOUGH, Point, scaled


@dataclass(frozen=True)
class Surface:
    """An objective between the finished trials of two parameters that are numbers."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    """By y and x; NaN outside the trials' hull, where nothing is known."""


def surface(
    points: Sequence[Point], heights: Sequence[float], x: AnyParameter, y: AnyParameter, size: int = 120
) -> Surface | None:
    """Interpolate linearly between finished trials; None where a parameter is a choice or the trials span no area.

    Args:
        points: finished trials that have both parameters.
        heights: the objective of each.
        x: parameter along the first axis.
        y: parameter along the second axis.
        size: of the grid, along each axis.
    """
    if isinstance(x, Choice) or isinstance(y, Choice) or len(points) < ENOUGH:
        return None
    places = np.array([[scaled(x, point.values[x.name]), scaled(y, point.values[y.name])] for point in points])
    steps = np.linspace(0, 1, size)
    grid_x, grid_y = np.meshgrid(steps, steps)
    try:
        z = griddata(places, np.array(heights), (grid_x, grid_y), method="linear")
    except QhullError:
        return None
    return Surface(unscaled(x, steps), unscaled(y, steps), z)


def unscaled(parameter: AnyParameter, places: np.ndarray) -> np.ndarray:
    """The values that lie at places between 0 and 1; see `scaled`. Of a choice there are none between."""
    if isinstance(parameter, Choice):
        raise TypeError(f"{parameter.name} is a choice")
    low, high = float(parameter.low), float(parameter.high)
    return low * (high / low) ** places if parameter.log else low + (high - low) * places
