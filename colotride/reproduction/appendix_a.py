"""Appendix A in numbers: how far embeddings must move for the same gain in hardness, by what moves.

The paper lets all perturbed parts of a triplet move by the same distance s and averages the shift over the three
parts, unmoved ones included: s / 3 for ANP, 2 s / 3 for CAP, s for SIP. Here each part takes its best direction, found
numerically, in the plane of the triplet.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from colotride.io import save_figure

DIRECTIONS = 7200
"""Directions that are tried for the anchor, a twentieth of a degree apart."""


@dataclass(frozen=True)
class Shifts:
    """Mean shifts over the three parts of a triplet that reach one target hardness."""

    angle: float
    """Between the directions from the anchor to the positive and to the negative, in degrees."""
    anchor: float
    candidates: float
    simultaneous: float

    @property
    def ratio(self) -> float:
        """Eq. 26: (mean shift of ANP + mean shift of CAP) over that of SIP."""
        return (self.anchor + self.candidates) / self.simultaneous


def shifts_at(angle: float, gain: float = 1e-3) -> Shifts:
    """Mean shifts that raise H = d(A,P) - d(A,N) by `gain`, for P and N at distance 1 from A.

    Args:
        angle: between A-P and A-N, in degrees, in (0, 180]; 180 is the collinear case.
        gain: target rise of the hardness, small against 1.
    """

    def anchor_gain(size: float) -> float:
        around = np.linspace(0, 2 * math.pi, DIRECTIONS, endpoint=False)
        moved = size * np.stack([np.cos(around), np.sin(around)], axis=1)
        positive = np.array([1.0, 0.0])
        negative = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        hardness = np.linalg.norm(moved - positive, axis=1) - np.linalg.norm(moved - negative, axis=1)
        return float(hardness.max())

    # A candidate gains most along its own line to the anchor: s for each of the two.
    sizes = {
        "anchor": _size(anchor_gain, gain),
        "candidates": gain / 2,
        "simultaneous": _size(lambda size: anchor_gain(size) + 2 * size, gain),
    }
    return Shifts(angle, sizes["anchor"] / 3, 2 * sizes["candidates"] / 3, sizes["simultaneous"])


def _size(gain_of: Callable[[float], float], gain: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gain_of(middle) < gain else (low, middle)
    return high


def draw_ratios(shifts: Sequence[Shifts], path: Path) -> list[Path]:
    """Draw the ratio over the angle as PNG and SVG, atomically; returns the two files."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([one.angle for one in shifts], [one.ratio for one in shifts], marker="o", label="best directions")
    axes.axhline(2, color="black", linewidth=0.8, label="collinear case, Eq. 19-21")
    axes.set(xlabel="angle between A-P and A-N, degrees", ylabel="(ANP + CAP) / SIP", title="Appendix A: mean shifts")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return [save_figure(figure, path.with_suffix(suffix)) for suffix in (".png", ".svg")]
