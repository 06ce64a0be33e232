"""Robustness for its price: ways to perturb in training, by the robustness that is left and the passes they cost."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from colotride.config import RunConfig
from colotride.data.splits import load_splits
from colotride.evaluation.evaluator import evaluate
from colotride.io import save_figure
from colotride.pgd_settings import PGDSettings
from colotride.presets import with_defense
from colotride.training.run_directory import config_digest
from colotride.training.trainer import Trainer
from colotride.tune.records import LOST, SHOWN_SCORES
from colotride.tune.seed_statistics import Difference, paired_difference
from scripts.benchmarks.resumable import measure_missing

DEFAULT = "as the preset"


@dataclass(frozen=True)
class Scheme:
    """A way to cover the ball: settings of the perturbation, in the steps, step size and radius of the data set's own."""

    name: str
    changes: Callable[[PGDSettings], dict[str, Any]]


def _fewer(factor: int) -> Callable[[PGDSettings], dict[str, Any]]:
    return lambda own: {"steps": max(1, own.steps // factor), "step_size": own.step_size * factor}


def _growing(factor: int) -> Callable[[PGDSettings], dict[str, Any]]:
    return lambda own: _fewer(factor)(own) | {"growth": "steps", "ramp": "linear"}


def _single_step(own: PGDSettings) -> dict[str, Any]:
    return {"steps": 1, "step_size": 1.25 * own.epsilon, "random_start": 1.0, "ramp": "constant"}


def _noise_step(own: PGDSettings) -> dict[str, Any]:
    return {"steps": 1, "step_size": own.epsilon, "random_start": 2.0, "project": False, "ramp": "constant"}


SCHEMES = {
    one.name: one
    for one in (
        Scheme(DEFAULT, lambda own: {}),
        Scheme("constant ramp", lambda own: {"ramp": "constant"}),
        Scheme("half as many steps", _fewer(2)),
        Scheme("a quarter as many", _fewer(4)),
        Scheme("growing", _growing(1)),
        Scheme("half as many, growing", _growing(2)),
        Scheme("two from noise", lambda own: _single_step(own) | {"steps": 2, "step_size": own.epsilon / 1.6}),
        Scheme("FGSM-RS", _single_step),
        Scheme("FGSM-RS, stepping back", lambda own: _single_step(own) | {"step_back": 3}),
        Scheme("FGSM-RS, adaptive", lambda own: _single_step(own) | {"adaptive_steps": True}),
        Scheme("N-FGSM", _noise_step),
    )
}
"""By name. Fewer steps are larger by the same factor. FGSM-RS: Wong et al., 2020; N-FGSM: de Jorge et al., 2022."""


@dataclass(frozen=True)
class RobustnessRow:
    """One scheme with one defense: means over its seeds."""

    defense: str
    scheme: str
    seeds: int
    lost: int
    """Runs that collapsed, diverged or ended in NaN. A collapsed model is evaluated; the others score 0."""
    passes: float
    """Images through the network in one training; a pass inside a perturbation includes its backward pass."""
    seconds: float
    """Of one training."""
    scores: dict[str, float]
    deviation: float
    """Sample standard deviation of ARS; 0 for a single seed."""
    difference: Difference | None
    """ARS less that of the default scheme, in pairs of seeds; None for the default and for a single seed."""


def run_of(base: RunConfig, defense: str, scheme: str, seed: int) -> RunConfig:
    """The run of a scheme: every defense has the steps of the data set's own perturbation to start from."""
    config = with_defense(base, defense).with_values({"pgd.steps": base.pgd.steps, "seed": seed})
    changes = {f"pgd.{name}": value for name, value in SCHEMES[scheme].changes(config.pgd).items()}
    return config.with_values({**changes, "data.hold_out_validation": False})


def measure(config: RunConfig, queries: int) -> dict[str, Any]:
    """Train and evaluate one run; plain values."""
    torch.set_num_threads(1)
    device, splits = torch.device("cpu"), load_splits(config.data)
    trainer = Trainer(config, splits.train, None, device=device)
    outcome, scores = trainer.run(), dict.fromkeys(SHOWN_SCORES, 0.0)
    if outcome.status not in ("nan", "diverged"):
        settings = config.evaluation.with_values({"queries": queries, "bootstrap": 0})
        size = config.data.image_size
        result = evaluate(trainer.model, splits.test, settings, image_size=size, seed=config.seed, device=device)
        scores = {name: result.scores()[name] for name in SHOWN_SCORES}
    last = outcome.history[-1].diagnostics
    return {
        "status": outcome.status,
        "passes": sum(one.passes for one in outcome.history),
        "seconds": sum(one.seconds for one in outcome.history),
        "scores": scores,
        "steps": last.get("pgd_steps", float(config.pgd.steps)),
    }


def measure_robustness(
    base: RunConfig,
    defenses: Sequence[str],
    schemes: Sequence[str],
    seeds: int,
    queries: int,
    folder: Path,
    *,
    processes: int = 1,
    on_run: Callable[[str], None] = lambda _: None,
) -> list[RobustnessRow]:
    """Measure schemes with some defenses; the default scheme is always among them.

    Args:
        base: of all runs; its steps, step size and radius are those of the default scheme.
        defenses: names of those to train.
        schemes: names of those to try.
        seeds: runs of each.
        queries: test images that are attacked.
        folder: keeps the results of the runs; one that is there is not measured again.
        processes: runs side by side, of one thread each.
        on_run: called with a line about how far it is.
    """
    names = tuple(dict.fromkeys((DEFAULT, *schemes)))
    keys = [(defense, scheme, seed) for seed in range(seeds) for defense in defenses for scheme in names]
    # Two schemes are one run where a defense has that ramp anyway.
    configs = {key: run_of(base, *key) for key in keys}
    files = {key: folder / f"{config_digest(config)[:16]}-{queries}.json" for key, config in configs.items()}
    tasks = {files[key]: (config, queries) for key, config in configs.items()}
    measured = dict(zip(tasks, measure_missing(tasks, measure, processes, on_run), strict=True))
    runs = {key: measured[file] for key, file in files.items()}
    return [_row(runs, defense, scheme, range(seeds)) for defense in defenses for scheme in names]


def _row(runs: dict[tuple[str, str, int], Any], defense: str, scheme: str, seeds: Sequence[int]) -> RobustnessRow:
    own = [runs[defense, scheme, seed] for seed in seeds]
    robust = {name: {seed: runs[defense, name, seed]["scores"]["ARS"] for seed in seeds} for name in (scheme, DEFAULT)}
    values = list(robust[scheme].values())
    return RobustnessRow(
        defense=defense,
        scheme=scheme,
        seeds=len(own),
        lost=sum(one["status"] in LOST for one in own),
        passes=statistics.mean(one["passes"] for one in own),
        seconds=statistics.mean(one["seconds"] for one in own),
        scores={name: statistics.mean(one["scores"][name] for one in own) for name in SHOWN_SCORES},
        deviation=statistics.stdev(values) if len(values) > 1 else 0.0,
        difference=None if scheme == DEFAULT else paired_difference(robust[scheme], robust[DEFAULT]),
    )


def draw_robustness(rows: Sequence[RobustnessRow], path: Path) -> None:
    """Draw ARS against what a training costs, in passes and in seconds: a column for each defense, a point for each scheme."""
    defenses = list(dict.fromkeys(row.defense for row in rows))
    figure = Figure(figsize=(4.6 * len(defenses), 7.6), layout="constrained")
    axes = figure.subplots(2, len(defenses), squeeze=False, sharey=True)
    for column, defense in zip(axes.T, defenses, strict=True):
        for place, row in enumerate(one for one in rows if one.defense == defense):
            for axis, price in zip(column, (row.passes / 1000, row.seconds), strict=True):
                axis.errorbar(
                    price,
                    row.scores["ARS"],
                    yerr=row.deviation,
                    fmt="os^Dv<>phX*"[place % 11],
                    color=f"C{place}" if place < 10 else "black",
                    capsize=3,
                    label=row.scheme,
                )
        column[0].set(title=defense, xlabel="thousand images through the network in training")
        column[1].set(xlabel="seconds of training")
        for axis in column:
            axis.set_xlim(left=0)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("ARS")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save_figure(figure, path, dpi=140)


def as_values(rows: Sequence[RobustnessRow]) -> list[dict[str, Any]]:
    """Plain values of the rows."""
    return [asdict(row) for row in rows]
