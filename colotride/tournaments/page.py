"""The tournament as a picture, a table in Markdown and one HTML page that loads nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from colotride.io import save_figure, write_atomically
from colotride.markdown import table
from colotride.templates import inline_svg, render
from colotride.tournaments.plan import TournamentPlan
from colotride.tournaments.results import (
    DEFAULT_TRIAL,
    RETRIEVAL,
    ROBUSTNESS,
    FinalistResult,
    front,
    match_rows,
    rows,
    sentence,
    volume_rows,
)

MARKERS = "os^Dvp*X"

PRECISION = "mAP"


def write_page(
    folder: Path,
    plan: TournamentPlan,
    cost: float,
    pairs: Mapping[str, int],
    finalists: Sequence[FinalistResult],
) -> list[Path]:
    """Write tournament.html, tournament.md and front.png, each atomically.

    Args:
        folder: of the tournament.
        plan: of the tournament.
        cost: of each run, in millions of image passes.
        pairs: in an epoch of each defense.
        finalists: of all defenses.

    Returns:
        The files.
    """
    figure = draw_fronts(finalists)
    tables = {
        "Finalists": rows(finalists),
        "Hypervolume": volume_rows(finalists, plan.reference),
        f"{plan.reference} against each finalist, at equal or higher R@1": match_rows(finalists, plan.reference),
    }
    page = render(
        "colotride.tournaments",
        "page.html.j2",
        plan=plan,
        cost=f"{cost:.2f}",
        pairs=pairs,
        steps={name: plan.run_of(name).pgd.steps for name in plan.defenses},
        sentence=sentence(finalists, plan.reference),
        picture=inline_svg(figure),
        tables=tables,
        values=[
            (one.name, ", ".join(f"{name} {_text(value)}" for name, value in one.values.items())) for one in finalists
        ],
        style=files("colotride.tournaments").joinpath("page.css").read_text(),
    )
    write_atomically(folder / "tournament.html", page.encode())
    text = [f"{sentence(finalists, plan.reference)}\n"]
    text += [
        f"**{title}**\n\n{table(list(body[0]), [list(row.values()) for row in body], left=1)}"
        for title, body in tables.items()
        if body
    ]
    write_atomically(folder / "tournament.md", ("\n".join(text) + "\n").encode())
    picture = save_figure(figure, folder / "front.png")
    return [folder / "tournament.html", folder / "tournament.md", picture]


def draw_fronts(finalists: Sequence[FinalistResult]) -> Figure:
    """R@1 and mAP against ARS: runs as faint points, every finalist's mean as a mark, and each defense's front."""
    figure = Figure(figsize=(7, 9), layout="constrained")
    for axes, retrieval in zip(figure.subplots(2), (RETRIEVAL, PRECISION), strict=True):
        _draw_front(axes, finalists, retrieval)
    figure.axes[0].legend(
        frameon=False, title="hollow: as its authors use it", fontsize="small", title_fontsize="small"
    )
    return figure


def _draw_front(axes: Axes, finalists: Sequence[FinalistResult], retrieval: str) -> None:
    fronts: dict[str, list[tuple[float, float]]] = {}
    for number, defense in enumerate(dict.fromkeys(one.defense for one in finalists)):
        own = [one for one in finalists if one.defense == defense]
        colour, marker = f"C{number}", MARKERS[number % len(MARKERS)]
        for one in own:
            axes.plot(
                list(one.scores[retrieval].values()), list(one.scores[ROBUSTNESS].values()), marker, color=colour,
                markersize=4, alpha=0.3, linestyle="",
            )  # fmt: skip
        means = {one.name: (one.mean(retrieval), one.mean(ROBUSTNESS)) for one in own}
        fronts[colour] = [means[name] for name in front(means)]
        axes.plot(*zip(*means.values(), strict=True), marker, color=colour, markersize=8, label=defense, linestyle="")
        default = next((one for one in own if one.trial == DEFAULT_TRIAL), None)
        if default is not None:
            axes.plot(*means[default.name], marker, color="white", markeredgecolor=colour, markersize=8, linestyle="")
    # The marks decide what is shown; each front goes on to the axes.
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    for colour, best in fronts.items():
        points = [(0.0, best[0][1]), *best, (best[-1][0], 0.0)]
        axes.step(*zip(*points, strict=True), where="pre", color=colour, linewidth=1.2, alpha=0.8)
    axes.set(xlabel=f"{retrieval} without an attack, %", ylabel="ARS")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
