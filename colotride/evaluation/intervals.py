"""Confidence intervals of every score, over the images that happened to be drawn.

Scores are functions of means over the images, so that a resample is a row of counts and all resamples are one matrix
product. From them come BCa intervals (Efron, 1987), as `scipy.stats.bootstrap` computes them for one score at a time:
its result is the test of ours.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from colotride.evaluation.scores import Resistance, attack_scores, mean_of, moments

Interval = tuple[float, float]

LEVEL = 0.95
"""Probability with which an interval should hold the score of the population."""

BLOCK_VALUES = 2**24
"""Counts of resampled images held at once."""

Means = Mapping[str, Float[Tensor, "*samples"]]


def attack_intervals(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    resistance: Resistance,
    samples: int,
    random: torch.Generator,
) -> dict[str, Interval]:
    """Intervals of the scores after the attacks; all attacks are resampled with the same queries.

    Args:
        before: by attack number, the value of each attacked image before the attack.
        after: the same after it.
        resistance: how ARS averages.
        samples: how often to draw as many images, with repetition.
        random: CPU generator.
    """
    return bca_intervals(moments(before, after), lambda means: attack_scores(means, resistance), samples, random)


def difference_intervals(
    one: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    other: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    resistance: Resistance,
    samples: int,
    random: torch.Generator,
) -> dict[str, Interval]:
    """Intervals of the scores of one model minus those of another, attacked with the same queries.

    Paired: a resample holds the same queries for both, so that what makes a query hard for both cancels out.

    Args:
        one: its values before and after the attacks, by attack number.
        other: the same of the other model, query by query.
        resistance: how ARS averages.
        samples: how often to draw as many queries, with repetition.
        random: CPU generator.
    """
    both = {
        f"{which} {name}": values
        for which, each in (("0", one), ("1", other))
        for name, values in moments(*each).items()
    }

    def difference(means: Means) -> dict[str, Tensor]:
        first, second = (
            attack_scores({name[2:]: value for name, value in means.items() if name.startswith(which)}, resistance)
            for which in "01"
        )
        return {name: first[name] - second[name] for name in first}

    return bca_intervals(both, difference, samples, random)


def benign_intervals(values: Mapping[str, Tensor], samples: int, random: torch.Generator) -> dict[str, Interval]:
    """Intervals of scores that are means over the images."""
    return bca_intervals(values, dict, samples, random)


def bca_intervals(
    values: Mapping[str, Float[Tensor, "images"]],
    scores: Callable[[Means], Mapping[str, Tensor]],
    samples: int,
    random: torch.Generator,
) -> dict[str, Interval]:
    """Bias-corrected and accelerated bootstrap intervals of scores that are functions of means.

    Args:
        values: what the means are of, image by image.
        scores: from means, of any shape, to scores of that shape.
        samples: how often to draw as many images, with repetition.
        random: CPU generator.
    """
    names, columns = list(values), torch.stack([one.double() for one in values.values()], dim=1)
    images, step = len(columns), max(1, BLOCK_VALUES // len(columns))
    drawn = torch.cat(
        [
            _counts(torch.randint(images, (min(step, samples - start), images), generator=random)) @ columns / images
            for start in range(0, samples, step)
        ]
    )
    whole = columns.mean(dim=0)
    without_one = (images * whole - columns) / (images - 1)
    estimate, found, left_out = (
        scores(dict(zip(names, means.unbind(dim=-1), strict=True))) for means in (whole, drawn, without_one)
    )
    return {name: _bca(estimate[name], found[name], left_out[name]) for name in estimate}


def _counts(drawn: Int[Tensor, "samples images"]) -> Float[Tensor, "samples images"]:
    """How often each image is in each sample."""
    return torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones((), dtype=torch.float64).expand(drawn.shape)
    )


def _bca(estimate: Tensor, found: Float[Tensor, "samples"], left_out: Float[Tensor, "images"]) -> Interval:
    """The quantiles of the resampled scores that stand for the two ends.

    z0 corrects for the share of the resamples below the score, a for how its variance changes with the score. Where all
    resamples agree, or all lie on one side, there is nothing to correct by, and plain quantiles remain.
    """
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    below = ((found < estimate).double().mean() + (found <= estimate).double().mean()) / 2
    away = left_out.mean() - left_out
    spread = away.square().sum()
    if 0 < below < 1 and spread > 0:
        bias, acceleration = normal.icdf(below), away.pow(3).sum() / (6 * spread**1.5)
        shifted = bias + normal.icdf(ends)
        ends = normal.cdf(bias + shifted / (1 - acceleration * shifted))
    low, high = found.quantile(ends)
    return float(low), float(high)


def nmi_interval(labels: Int[Tensor, "images"], clusterings: Int[Tensor, "starts images"]) -> Interval:
    """Interval of NMI, the mean over several starts of k-means: of the images' variance and of the starts'.

    By the jackknife, not the bootstrap: a resample holds images twice, which raises every mutual information. Leaving an
    image out lowers one cell, one row and one column of the table of classes and clusters by 1.

    Args:
        labels: classes.
        clusterings: the cluster of every image, by start.
    """
    scores, left_out = (
        torch.stack(each) for each in zip(*(_nmi_and_jackknife(labels, one) for one in clusterings), strict=True)
    )
    images, starts = len(labels), len(clusterings)
    without_one = left_out.mean(dim=0)
    variance = (images - 1) / images * (without_one - without_one.mean()).square().sum()
    if starts > 1:
        variance = variance + scores.var() / starts
    half = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + LEVEL) / 2)).double() * variance.sqrt()
    score = mean_of(scores)
    return max(0.0, float(score - half)), min(100.0, float(score + half))


def _nmi_and_jackknife(labels: Tensor, assigned: Tensor) -> tuple[Float[Tensor, ""], Float[Tensor, "images"]]:
    """NMI in percent (2 I / (H + H)), and what it is without each image."""
    classes, clusters = (one.unique(return_inverse=True)[1] for one in (labels, assigned))
    cell, cell_counts = (classes * (int(clusters.max()) + 1) + clusters).unique(
        return_inverse=True, return_counts=True
    )[1:]
    images = torch.tensor(float(len(labels)), dtype=torch.float64)
    cells, rows, columns = cell_counts.double(), classes.bincount().double(), clusters.bincount().double()
    sums = [torch.xlogy(one, one).sum() for one in (cells, rows, columns)]
    own = [cells[cell], rows[classes], columns[clusters]]
    lowered = [
        total - torch.xlogy(one, one) + torch.xlogy(one - 1, one - 1) for total, one in zip(sums, own, strict=True)
    ]
    return _nmi(images, *sums), _nmi(images - 1, *lowered)


def _nmi(images: Tensor, cells: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """From the sums of n log n over cells, rows and columns."""
    log = images.log()
    entropies = 2 * log - (rows + columns) / images
    information = log + (cells - rows - columns) / images
    return 100 * torch.where(entropies > 1e-12, 2 * information / entropies.clamp_min(1e-12), 1.0)
