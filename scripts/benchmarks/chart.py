"""Bar charts of ratios."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from colotride.io import save_figure


def draw_ratios(groups: Mapping[str, Sequence[tuple[str, float]]], title: str, path: Path) -> None:
    """Draw one panel per group, one bar per entry, and a line at 1 (as fast as the textbook).

    Args:
        groups: by heading, the bars' labels and ratios.
        title: above the figure.
        path: PNG, written atomically.
    """
    figure = Figure(figsize=(1.2 + 3.2 * len(groups), 3.2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, (heading, bars) in zip(axes, groups.items(), strict=True):
        drawn = axis.bar([label for label, _ in bars], [value for _, value in bars], color="#3b6ea5")
        axis.bar_label(drawn, fmt="%.1fx", fontsize=8)
        axis.axhline(1, color="#888888", linewidth=1)
        axis.set_title(heading, fontsize=9)
        axis.tick_params(axis="x", labelsize=8, rotation=30)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, dpi=140)
