"""Whether a model protects all classes alike: scores per class, their spread and the worst tenth of the classes."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from colotride.evaluation.measurement import Figures, Measurement
from colotride.evaluation.scores import Resistance, attack_scores, moments

SHOWN = ("R@1", "mAP", "ERS", "ARS")
"""Scores of the table; the file has all."""

WORST_SHARE = 0.1
"""Of the classes, those that the worst decile is the mean of; at least one."""

MEANING = (
    "Each score is computed for every class alone, from the attacked images of the class. The spread is the standard "
    "deviation between classes; the worst decile is the mean of the worst tenth of them. A small spread and a worst decile "
    "close to the mean treat all classes alike. With few queries per class much of the spread is chance."
)


def class_scores(
    benign: Mapping[str, Float[Tensor, "images"]],
    labels: Int[Tensor, "images"],
    before: Mapping[str, Float[Tensor, "queries"]],
    after: Mapping[str, Float[Tensor, "queries"]],
    queries: Int[Tensor, "queries"],
    resistance: Resistance,
) -> dict[str, Tensor]:
    """Every score of every class that has an attacked image.

    Args:
        benign: of every image its part in each benign score that is a mean.
        labels: of every image.
        before: by attack number, the value of each attacked image before the attack.
        after: the same after it.
        queries: their places in the gallery.
        resistance: how ARS averages.

    Returns:
        By column: `class`, `queries` (attacked images of the class), and each score, [classes].
    """
    classes, rows, counts = labels[queries].unique(return_inverse=True, return_counts=True)
    means = {name: _class_means(values, rows, counts) for name, values in moments(before, after).items()}
    known = torch.isin(labels, classes)
    places = torch.searchsorted(classes, labels[known])
    sizes = torch.bincount(places, minlength=len(classes))
    clean = {name: _class_means(values[known].double(), places, sizes) for name, values in benign.items()}
    return {"class": classes, "queries": counts, **clean, **attack_scores(means, resistance)}


def fairness_measurement(scores: Mapping[str, Tensor]) -> Measurement:
    """The table of what `class_scores` found.

    Args:
        scores: by column.
    """
    rows = {name: _spread(scores[name], scores["class"]) for name in SHOWN if name in scores}
    settings = {"classes": len(scores["class"]), "queries per class": float(scores["queries"].double().mean())}
    return Measurement("fairness", "Scores per class", MEANING, rows, settings)


def _class_means(values: Float[Tensor, "items"], rows: Int[Tensor, "items"], counts: Int[Tensor, "classes"]) -> Tensor:
    total = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, rows, values.double())
    return total / counts


def _spread(scores: Float[Tensor, "classes"], classes: Int[Tensor, "classes"]) -> Figures:
    order = scores.argsort(stable=True)
    worst = order[: max(1, round(WORST_SHARE * len(scores)))]
    return {
        "mean of classes": float(scores.mean()),
        "spread": float(scores.std(correction=0)),
        "worst decile": float(scores[worst].mean()),
        "worst class": float(scores[order[0]]),
        "best class": float(scores[order[-1]]),
        "label of the worst": float(classes[order[0]]),
    }
