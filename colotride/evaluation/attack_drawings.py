"""A picture of every attack: the plane of embeddings, what moves in it, and where to.

The pictures are SVG whose colours are CSS variables, so that the page around them chooses light or dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from colotride.templates import render

Point = tuple[float | int, float | int]

WIDTH, HEIGHT = 240, 150
"""Of one picture."""

SAME: Sequence[Point] = ((80, 46), (46, 92), (98, 104))
"""Gallery images of the query's class, which is at (72, 76)."""

OTHER: Sequence[Point] = ((132, 48), (150, 112), (176, 30), (206, 88), (218, 34), (190, 126))
"""Gallery images of other classes."""

QUERY: Point = (72, 76)


@dataclass(frozen=True)
class Scene:
    """What one attack does in the plane."""

    title: str
    start: Point
    """Of the image that moves."""
    end: Point
    target: Point | None = None
    """The image that the attack is about, where it is not the one that moves."""
    reach: tuple[Point, Point] | None = None
    """A circle around the first point through the second: whatever lies inside comes earlier in the results."""
    candidate_moves: bool = False
    words: tuple[tuple[int, int, str], ...] = ()
    """Short texts: where, and which."""

    @property
    def radius(self) -> float:
        """Of the circle."""
        assert self.reach is not None
        (x0, y0), (x1, y1) = self.reach
        return math.hypot(x1 - x0, y1 - y0)

    def _along(self, distance: float) -> Point:
        """The point of the movement at this distance from its start, or before its end where negative."""
        (x0, y0), (x1, y1) = self.start, self.end
        length = math.hypot(x1 - x0, y1 - y0)
        share = (distance if distance >= 0 else length + distance) / length
        return round(x0 + share * (x1 - x0), 1), round(y0 + share * (y1 - y0), 1)

    @property
    def tail(self) -> Point:
        """Where the arrow begins: at the edge of the image before the attack."""
        return self._along(8.0)

    @property
    def neck(self) -> Point:
        """Where the arrow's head begins."""
        return self._along(-17.0)

    @property
    def head(self) -> str:
        """The corners of the arrow's head, as SVG writes them."""
        (x0, y0), (x1, y1) = self.neck, self._along(-7.0)
        across = (-(y1 - y0) / 2, (x1 - x0) / 2)
        corners = ((x1, y1), (x0 + across[0], y0 + across[1]), (x0 - across[0], y0 - across[1]))
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)


SCENES = {
    "CA+": Scene(
        "A far candidate moves next to the query",
        (206, 88), (92, 84), reach=(QUERY, (92, 84)), candidate_moves=True,
        words=((52, 70, "q"), (210, 106, "c")),
    ),
    "CA-": Scene(
        "A near candidate moves far away",
        (98, 104), (228, 62), reach=(QUERY, (98, 104)), candidate_moves=True,
        words=((52, 70, "q"), (92, 124, "c")),
    ),
    "QA+": Scene(
        "The query moves next to a far candidate",
        QUERY, (188, 96), target=(206, 88), reach=((188, 96), (206, 88)),
        words=((52, 70, "q"), (224, 110, "c")),
    ),
    "QA-": Scene(
        "The query leaves a near candidate",
        QUERY, (192, 106), target=(98, 104),
        words=((52, 70, "q"), (92, 124, "c")),
    ),
    "TMA": Scene(
        "The query moves onto another image",
        QUERY, (205, 38), target=(218, 34),
        words=((52, 70, "q"), (224, 18, "t")),
    ),
    "ES": Scene(
        "The query moves as far as it can",
        QUERY, (160, 84),
        words=((52, 70, "q"), (122, 72, "distance")),
    ),
    "LTM": Scene(
        "The query leaves its own class",
        QUERY, (180, 58), target=(218, 34),
        words=((52, 70, "q"),),
    ),
    "GTM": Scene(
        "The query moves onto another class",
        QUERY, (119, 55), target=(132, 48),
        words=((52, 70, "q"),),
    ),
    "GTT": Scene(
        "Its first result falls behind four others",
        QUERY, (158, 84), target=(98, 104), reach=((158, 84), (98, 104)),
        words=((52, 70, "q"), (86, 124, "1st")),
    ),
}  # fmt: skip
"""By the name of the attack."""


def picture(attack: str, *, x: int = 0, y: int = 0) -> str:
    """The picture of one attack as an SVG element, at this place where it stands inside another one."""
    scene = SCENES[attack]
    still = scene.start if scene.candidate_moves else None
    return render(
        "colotride.evaluation",
        "attack.svg.j2",
        scene=scene,
        name=attack,
        x=x,
        y=y,
        width=WIDTH,
        height=HEIGHT,
        same=[point for point in SAME if point != still],
        other=[point for point in OTHER if point != still],
        query=QUERY,
    )
