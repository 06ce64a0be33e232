"""ERS and ARS: one number for the robustness of a model.

Every score is a function of means over the queries. `moments` makes the values of each query whose means those are, and
`attack_scores` the scores from the means: what the bootstrap and the jackknife (`intervals`) are cheap by.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

RANK_GOALS = {"CA+": 0.0, "CA-": 100.0, "QA+": 0.0, "QA-": 100.0}
"""The percentile rank that each rank attack wants to reach."""

RECALL_ATTACKS = ("ES:R", "LTM", "GTM", "GTT")
"""Attacks that want to lower a share to 0."""

ATTACK_NAMES = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES", "LTM", "GTM", "GTT")
"""The nine attacks behind the ten numbers, in the order of the paper's tables; ES has two."""

ATTACK_COLUMNS = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT")
"""The ten numbers of Table 1, in its order."""

RESISTANCE_COLUMNS = (*RANK_GOALS, *RECALL_ATTACKS)
"""The eight numbers of Table 2, in its order; TMA and ES:D are left out, for the reasons of Section 3.4."""

HEADLINE_SCORES = ("R@1", "mAP", "ERS", "ARS")
"""The scores by which models are compared at a glance, wherever runs, trials or evaluations stand side by side."""

Resistance = Literal["mean of ratios", "ratio of means"]
"""How the ranks' resistances are averaged: per query as Eq. 28-30 define them, or as in the papers' tables."""

Score = TypeVar("Score", float, Tensor)


def empirical_robustness_score(columns: Mapping[str, Score]) -> Score:
    """ERS: the mean of the ten attack numbers, each scaled to 0..100 so that more is more robust.

    The raised ranks count twice, because a random rank is 50 % on average.

    Args:
        columns: CA+, CA-, QA+, QA- (percentile ranks), TMA (cosine), ES:D (shift in [0, 2]), ES:R, LTM, GTM, GTT
            (percent), all after the attack.
    """
    return _mean(list(scaled_columns(columns).values()))


def scaled_columns(columns: Mapping[str, Score]) -> dict[str, Score]:
    """The ten attack numbers on one scale, 0..100, where more is more robust: the terms of ERS."""
    return {
        "CA+": 2 * columns["CA+"],
        "CA-": 100 - columns["CA-"],
        "QA+": 2 * columns["QA+"],
        "QA-": 100 - columns["QA-"],
        "TMA": 100 * (1 - columns["TMA"]),
        "ES:D": 100 * (1 - columns["ES:D"] / 2),
        **{name: columns[name] for name in RECALL_ATTACKS},
    }


def adversarial_resistance_score(resistances: Mapping[str, Score]) -> Score:
    """ARS: the mean of the eight resistances, 0..100 (Eq. 27)."""
    return _mean([resistances[name] for name in RESISTANCE_COLUMNS])


def _mean(scores: list[Score]) -> Score:
    total = scores[0]
    for score in scores[1:]:
        total = total + score
    return total / len(scores)


def rank_resistance(
    before: Float[Tensor, "queries"], after: Float[Tensor, "queries"], goal: float
) -> tuple[Float[Tensor, "queries"], Float[Tensor, "queries"]]:
    """Of every query the share of its intention that a rank attack did not reach (Eq. 28-30), and whether it counts.

    1 - (v1 - v0) / (goal - v0), for the queries whose rank v0 differs from the goal. Each is clipped to [0, 1], which
    the equations leave open: a share of an intention lies there, and a query that starts next to its goal would otherwise
    outweigh hundreds of others when its rank changes by a place or two.

    Args:
        before: percentile ranks v0.
        after: percentile ranks v1.
        goal: the rank that the attack wants.

    Returns:
        The missed shares, 0 where the query does not count; and 1 where it counts, else 0.
    """
    start, end = before.double(), after.double()
    open_to_attack = start != goal
    missed = (1 - (end - start) / torch.where(open_to_attack, goal - start, 1.0)).clamp(0, 1)
    return torch.where(open_to_attack, missed, 0.0), open_to_attack.double()


def published_rank_resistance(after: Float[Tensor, "*samples"], goal: float) -> Float[Tensor, "*samples"]:
    """A rank attack's resistance as the papers' Table 2 has it, from the mean rank after the attack; not clipped.

    Twice the rank where the goal is 0 %, (100 - rank) / 99 in percent where it is 100 %: as if every raised image
    started at 50 % and every lowered one at 1 %.
    """
    return 2 * after if goal == 0 else 100 * (100 - after) / 99


def recall_resistance(before: Float[Tensor, "*samples"], after: Float[Tensor, "*samples"]) -> Float[Tensor, "*samples"]:
    """Share of the recall that an attack left, 0..100 (Eq. 31): after / before over the whole data set.

    A recall of 0 before the attack leaves nothing to resist with: 0. More recall than before counts as 100.
    """
    return torch.where(before > 0, (100 * after / before.clamp_min(1e-12)).clamp(max=100), 0.0)


def moments(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "queries"]]:
    """The values of each query whose means decide every score after the attacks.

    Args:
        before: by attack number, the value of each attacked image before the attack.
        after: the same after it.
    """
    found = {f"after {name}": values.double() for name, values in after.items()}
    found |= {f"before {name}": before[name].double() for name in RECALL_ATTACKS}
    for name, goal in RANK_GOALS.items():
        found[f"missed {name}"], found[f"counts {name}"] = rank_resistance(before[name], after[name], goal)
    return found


def attack_scores(means: Mapping[str, Float[Tensor, "*samples"]], resistance: Resistance) -> dict[str, Tensor]:
    """Every score after the attacks, under the names of reports, from the means of `moments`.

    Args:
        means: of the moments, over all queries or over samples of them.
        resistance: how ARS averages the ranks' resistances.
    """
    attacked = {name.removeprefix("after "): value for name, value in means.items() if name.startswith("after ")}
    resisted = {name: _resistance(name, goal, means, resistance) for name, goal in RANK_GOALS.items()}
    resisted |= {name: recall_resistance(means[f"before {name}"], means[f"after {name}"]) for name in RECALL_ATTACKS}
    return {
        **attacked,
        **{f"ARS {name}": value for name, value in resisted.items()},
        "ERS": empirical_robustness_score(attacked),
        "ARS": adversarial_resistance_score(resisted),
    }


def _resistance(name: str, goal: float, means: Mapping[str, Tensor], resistance: Resistance) -> Tensor:
    if resistance == "ratio of means":
        return published_rank_resistance(means[f"after {name}"], goal)
    counted = means[f"counts {name}"]
    # Where every query starts at the goal nothing was left to attack: 100.
    return torch.where(counted > 0, 100 * means[f"missed {name}"] / counted.clamp_min(1e-12), 100.0)


def resistance_of(protocol: str) -> Resistance:
    """How a protocol averages: `published` as the papers' tables, every other one by the definition."""
    return "ratio of means" if protocol == "published" else "mean of ratios"


def scores_of(before: Mapping[str, Tensor], after: Mapping[str, Tensor], resistance: Resistance) -> dict[str, float]:
    """Every score after the attacks from the values of every query; see `moments` and `attack_scores`."""
    means = {name: mean_of(values) for name, values in moments(before, after).items()}
    return {name: float(value) for name, value in attack_scores(means, resistance).items()}


def mean_of(values: Float[Tensor, "*samples queries"]) -> Float[Tensor, "*samples"]:
    """Mean over the queries, in double precision, so that the order of the queries does not show."""
    return values.to(torch.float64).mean(dim=-1)
