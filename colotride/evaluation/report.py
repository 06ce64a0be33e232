"""The report that people look at: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import colotride
from colotride.errors import ConfigurationError
from colotride.evaluation.attack_descriptions import DESCRIPTIONS, AttackDescription, Unit
from colotride.evaluation.attack_drawings import SCENES, picture
from colotride.evaluation.examples import RetrievalExample
from colotride.evaluation.record import EvaluationRecord
from colotride.evaluation.report_parts import histograms, images_of, line_chart, measured
from colotride.evaluation.sanity import Check
from colotride.evaluation.scores import RANK_GOALS, RESISTANCE_COLUMNS, mean_of, scaled_columns
from colotride.io import write_atomically
from colotride.templates import render

PROTOCOLS = {
    "strict": "The strict protocol attacks as the attacks are defined. ARS is the mean over the queries.",
    "published": "The published protocol reproduces the weaker attacks of the code behind the papers' numbers. ARS is a "
    "ratio of means, as in their tables.",
    "strong": "The strong protocol counts the worst outcome of several attacks and starts for each query. ARS is the mean "
    "over the queries.",
}

NORMS = {"linf": "L∞", "l2": "L2"}

HEADLINE = {
    "ERS": ("empirical robustness score", "The mean of the ten numbers below, each scaled to 0 to 100."),
    "ARS": (
        "adversarial resistance score",
        "The part of what eight attacks intended that they did not achieve: 100 means that they achieved nothing.",
    ),
    "R@1": ("recall at 1, without attack", "Queries whose first result is of their own class when nobody attacks."),
}

PERCENT = (0.0, 100.0)

AXES: Mapping[Unit, tuple[tuple[float, float], tuple[str, str]]] = {
    "rank": ((0.0, 100.0), ("0 %, first", "100 %, last")),
    "share": ((0.0, 100.0), ("0 % of the queries", "100 %")),
    "cosine": ((-1.0, 1.0), ("−1, opposite", "1, the same")),
    "distance": ((0.0, 2.0), ("0, not moved", "2, opposite")),
}
"""Both ends of the axis of each unit, and what to call them."""

GROUPS: Sequence[tuple[str, str, Sequence[Unit]]] = (
    (
        "Ranks under attack",
        "A rank says where an image stands in a query's results, in percent of the gallery: 0 % is the first place.",
        ("rank",),
    ),
    (
        "Queries that still find what they should",
        "Shares are percentages of the attacked queries.",
        ("share",),
    ),
    (
        "How far the embedding moves",
        "Embeddings are unit vectors: two of them are at most 2 apart, and their cosine similarity is between -1 and 1.",
        ("cosine", "distance"),
    ),
)
"""Attacks that stand together: a heading, what the numbers mean, and their units."""


def write_report(
    path: Path,
    evaluation: EvaluationRecord,
    *,
    title: str = "model",
    dataset: str = "the gallery",
    others: Mapping[str, Mapping[str, float]] | None = None,
    examples: Sequence[RetrievalExample] = (),
    checks: Sequence[Check] = (),
) -> None:
    """Write the report, atomically.

    Args:
        path: of the HTML file.
        evaluation: with the values of its single images.
        title: name of the model.
        dataset: name of the image set.
        others: printed rows to stand beside ours, by name.
        examples: to show; may be empty.
        checks: of the sanity pass; empty where it was not run.

    Raises:
        ConfigurationError: the evaluation was read without the values of its single images.
    """
    if not evaluation.per_query:
        raise ConfigurationError(
            "a report needs the values of single images, which this evaluation lacks; "
            "keep attacked.parquet and benign.parquet beside evaluation.json"
        )
    others = others or {}
    page = render(
        "colotride.evaluation",
        "report.html.j2",
        title=title,
        dataset=dataset,
        result=evaluation,
        version=colotride.__version__,
        norm=NORMS[evaluation.norm],
        epsilon=_size(evaluation.epsilon, evaluation.norm),
        step_size=_size(evaluation.step_size, evaluation.norm),
        passes=evaluation.convergence.passes[-1] if evaluation.convergence else None,
        curve=_curve(evaluation),
        convergence=_convergence(evaluation),
        protocol_meaning=PROTOCOLS[evaluation.protocol],
        headline=_headline(evaluation),
        pictures={name: picture(name) for name in SCENES},
        groups=[
            {
                "heading": heading,
                "meaning": meaning,
                "attacks": [_attack(evaluation, about) for about in DESCRIPTIONS if about.unit in units],
            }
            for heading, meaning, units in GROUPS
        ],
        histograms=histograms({name: evaluation.per_query[name] for name in RANK_GOALS}),
        rows=_rows(evaluation, others),
        others=list(others),
        examples=[images_of(example) for example in examples],
        small_images=bool(examples) and examples[0].pixels.shape[-1] < 84,
        checks=checks,
        measurements=[measured(one) for one in evaluation.measurements],
        suspected=[f'"{check.name}" fails, {check.meaning}' for check in checks if not check.passed],
    )
    write_atomically(path, page.encode())


def _size(size: float, norm: str) -> str:
    levels = size * 255
    return f"{levels:.0f}/255" if norm == "linf" and abs(levels - round(levels)) < 1e-6 else f"{size:.4g}"


def _curve(evaluation: EvaluationRecord) -> dict[str, Any] | None:
    points = evaluation.curve
    if not points:
        return None
    names = ("ERS", "ARS")
    return {
        "chart": line_chart(
            [point.epsilon for point in points],
            {name: [getattr(point, name) for point in points] for name in names},
            {name: [point.intervals[name] for point in points] for name in names if name in points[0].intervals},
        ),
        "ends": [_size(points[0].epsilon, evaluation.norm), _size(points[-1].epsilon, evaluation.norm)],
        "columns": [*names, *(f"ARS {name}" for name in RESISTANCE_COLUMNS)]
        + ([f"{name} strict" for name in names] if points[-1].strict else []),
        "rows": [
            (
                _size(point.epsilon, evaluation.norm),
                [
                    f"{value:.1f}"
                    for value in (
                        *(getattr(point, name) for name in names),
                        *(point.resistance[name] for name in RESISTANCE_COLUMNS),
                        *(point.strict[name] for name in names if point.strict),
                    )
                ],
            )
            for point in points
        ],
    }


def _convergence(evaluation: EvaluationRecord) -> dict[str, Any] | None:
    found = evaluation.convergence
    if found is None:
        return None
    names = ("ERS", "ARS", *(f"ARS {name}" for name in RESISTANCE_COLUMNS))
    return {
        "chart": line_chart(
            [float(each) for each in found.passes], {name: found.scores[name] for name in ("ERS", "ARS")}
        ),
        "passes": found.passes[-1],
        "strict_passes": found.strict_passes,
        "rows": [
            (name, f"{found.strict[name]:.1f}", f"{found.scores[name][-1]:.1f}", f"{found.gap[name]:.1f}")
            for name in names
        ],
    }


def _headline(evaluation: EvaluationRecord) -> list[dict[str, Any]]:
    scores = evaluation.scores()
    return [
        {
            "name": name,
            "full_name": full_name,
            "value": f"{scores[name]:.1f}",
            "interval": _interval(evaluation, name),
            "band": _band(evaluation, name, PERCENT),
            "position": _position(scores[name], PERCENT),
            "meaning": meaning,
        }
        for name, (full_name, meaning) in HEADLINE.items()
        if name in scores
    ]


def _attack(evaluation: EvaluationRecord, about: AttackDescription) -> dict[str, Any]:
    name, (limits, ends) = about.column, AXES[about.unit]
    before, after = float(mean_of(evaluation.per_query[name]["before"])), evaluation.attacked[name]
    start, end = _position(before, limits), _position(after, limits)
    resistance = evaluation.resistance.get(name)
    digits, percent = _digits(name), " %" if about.unit in ("rank", "share") else ""
    # The attack wants the opposite of what is good for the model.
    goal = 0 if about.robust == "higher" else 1
    return {
        "about": about,
        "value": f"{after:.{digits}f}{percent}",
        "before": f"{before:.{digits}f}{percent}",
        "interval": _interval(evaluation, name),
        "band": _band(evaluation, name, limits),
        "start": start,
        "end": end,
        "move": (min(start, end), round(abs(start - end), 2)),
        "ends": ends,
        "goal": goal,
        "term": f"{scaled_columns(evaluation.attacked)[name]:.1f}",
        "resistance": None if resistance is None else f"{resistance:.1f}",
    }


def _rows(evaluation: EvaluationRecord, others: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    arrows = {about.column: about.arrow for about in DESCRIPTIONS}
    return [
        {
            "name": name,
            "arrow": arrows.get(name, "↑"),
            "value": f"{value:.{_digits(name)}f}",
            "interval": _interval(evaluation, name),
            "others": [f"{other[name]:.{_digits(name)}f}" if name in other else "" for other in others.values()],
        }
        for name, value in evaluation.scores().items()
    ]


def _digits(name: str) -> int:
    return 2 if name in ("TMA", "ES:D") else 1


def _interval(evaluation: EvaluationRecord, name: str) -> str:
    if name not in evaluation.intervals:
        return ""
    low, high = evaluation.intervals[name]
    return f"{low:.{_digits(name)}f} to {high:.{_digits(name)}f}"


def _band(evaluation: EvaluationRecord, name: str, limits: tuple[float, float]) -> tuple[float, float] | None:
    """Where the interval begins on the axis, and how long it is, in percent of the axis."""
    if name not in evaluation.intervals:
        return None
    low, high = (_position(end, limits) for end in evaluation.intervals[name])
    return low, round(high - low, 2)


def _position(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)
