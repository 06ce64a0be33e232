"""Figures 3 and 4: the diagnostics of every epoch, one colour per defense, one line per seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from colotride.io import save_figure
from colotride.training.records import EpochRecord

Histories = Mapping[str, Sequence[Sequence[EpochRecord]]]
"""Per label the histories of its seeds."""

PANELS: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "figure3": (
        (("distance_anchor_positive",), "mean d(A,P)"),
        (("distance_anchor_negative",), "mean d(A,N)"),
        (("separability",), "separability"),
        (("hardness",), "hardness H"),
        (("collapseness",), "collapseness C, clean"),
        (("perturbed_collapseness",), "collapseness C, perturbed"),
        (("assist",), "share of batches assisted"),
    ),
    "figure4": ((("shift_all", "shift_candidates", "shift_anchor"), "relative embedding shift"),),
}
"""Per figure its panels: the diagnostics that they draw (the first that a run has, or their mean), and a title."""


def draw_curves(
    histories: Histories, what: str, path: Path, title: str, suffixes: Sequence[str] = (".png", ".svg")
) -> list[Path]:
    """Draw a figure, atomically.

    Args:
        histories: what to draw.
        what: `figure3` or `figure4`.
        path: without suffix.
        title: above the figure.
        suffixes: of the files.

    Returns:
        The files.
    """
    panels = PANELS[what]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 1, 3.2 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (names, heading) in zip(axes, panels, strict=False):
        for index, (label, seeds) in enumerate(histories.items()):
            for number, history in enumerate(seeds):
                epochs, values = _curve(history, names)
                axis.plot(epochs, values, color=f"C{index}", alpha=0.8, label=label if number == 0 else None)
        axis.set(title=heading, xlabel="epoch")
        axis.grid(alpha=0.3)
        if heading.startswith(("hardness", "collapseness", "separability")):
            axis.axhline(0, color="black", linewidth=0.8)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    axes[0].legend(frameon=False, fontsize="small")
    return [save_figure(figure, path.with_suffix(suffix)) for suffix in suffixes]


def _curve(history: Sequence[EpochRecord], names: Sequence[str]) -> tuple[list[int], list[float]]:
    points = []
    for record in history:
        known = [record.diagnostics[name] for name in names if name in record.diagnostics]
        if known:
            points.append((record.epoch, sum(known) / len(known)))
    return [epoch for epoch, _ in points], [value for _, value in points]
