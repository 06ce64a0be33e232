"""Confidence intervals of every score, by the bootstrap over the images."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from colotride.evaluation.retrieval import nmi
from colotride.evaluation.scores import (
    adversarial_resistance_score,
    columns,
    empirical_robustness_score,
    mean_of,
    resistances,
)

Interval = tuple[float, float]

LEVEL = 0.95
"""Share of the resamples between the two ends."""

CLUSTERING_SAMPLES = 100
"""Resamples for NMI, which costs a contingency table each."""

CHUNK_VALUES = 2**24
"""Resampled values held at once."""


def attack_scores(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every score after the attacks, from the values of every query, [..., queries], under the names of reports."""
    attacked, resisted = columns(after), resistances(before, after)
    return {
        **attacked,
        **{f"ARS {name}": value for name, value in resisted.items()},
        "ERS": empirical_robustness_score(attacked),
        "ARS": adversarial_resistance_score(resisted),
    }


def attack_intervals(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], samples: int, random: torch.Generator
) -> dict[str, Interval]:
    """Intervals of the scores after the attacks; all attacks are resampled with the same queries.

    Args:
        before: values of every attacked image before each attack.
        after: the same after it.
        samples: how often to draw as many images, with repetition.
        random: CPU generator.
    """

    def resampled(drawn: Int[Tensor, "samples queries"]) -> dict[str, Tensor]:
        return attack_scores(
            {name: values[drawn] for name, values in before.items()},
            {name: values[drawn] for name, values in after.items()},
        )

    return _intervals(resampled, attack_scores(before, after), len(next(iter(after.values()))), samples, random)


def benign_intervals(values: Mapping[str, Tensor], samples: int, random: torch.Generator) -> dict[str, Interval]:
    """Intervals of scores that are means over the images."""
    return _intervals(
        lambda drawn: {name: mean_of(one[drawn]) for name, one in values.items()},
        {name: mean_of(one) for name, one in values.items()},
        len(next(iter(values.values()))),
        samples,
        random,
    )


def nmi_interval(
    labels: Int[Tensor, "images"], assigned: Int[Tensor, "images"], samples: int, random: torch.Generator
) -> Interval:
    """Interval of NMI, the clustering being given."""
    score = torch.tensor(nmi(labels, assigned), dtype=torch.float64)
    drawn = [torch.randint(len(labels), (len(labels),), generator=random) for _ in range(samples)]
    found = torch.tensor([nmi(labels[one], assigned[one]) for one in drawn], dtype=torch.float64)
    return _interval(found, score)


def _intervals(
    scores: Callable[[Tensor], Mapping[str, Tensor]],
    estimates: Mapping[str, Tensor],
    images: int,
    samples: int,
    random: torch.Generator,
) -> dict[str, Interval]:
    step = max(1, CHUNK_VALUES // images)
    parts = [
        scores(torch.randint(images, (min(step, samples - start), images), generator=random))
        for start in range(0, samples, step)
    ]
    return {name: _interval(torch.cat([part[name] for part in parts]), estimates[name]) for name in estimates}


def _interval(found: Tensor, estimate: Tensor) -> Interval:
    """The middle of the resampled scores, moved so that their median lies at the score.

    A resample holds some images twice, which raises NMI: without the shift its interval would miss the score.
    """
    tail = (1 - LEVEL) / 2
    low, middle, high = found.quantile(torch.tensor([tail, 0.5, 1 - tail], dtype=found.dtype))
    return float(low - middle + estimate), float(high - middle + estimate)
