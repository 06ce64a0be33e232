"""ERS and ARS: one number for the robustness of a model."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

RANK_GOALS = {"CA+": 0.0, "CA-": 100.0, "QA+": 0.0, "QA-": 100.0}
"""The percentile rank that each rank attack wants to reach."""

RECALL_ATTACKS = ("ES:R", "LTM", "GTM", "GTT")
"""Attacks that want to lower a share to 0."""

ATTACK_COLUMNS = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT")
"""The ten numbers of Table 1, in its order."""

RESISTANCE_COLUMNS = (*RANK_GOALS, *RECALL_ATTACKS)
"""The eight numbers of Table 2, in its order; TMA and ES:D are left out, for the reasons of Section 3.4."""


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
    before: Float[Tensor, "*samples queries"], after: Float[Tensor, "*samples queries"], goal: float
) -> Float[Tensor, "*samples"]:
    """Share of its intention that a rank attack did not reach, 0..100 (Eq. 28-30).

    1 - (v1 - v0) / (goal - v0), averaged over the queries whose rank v0 differs from the goal. Each is clipped to
    [0, 1]: a share of an intention lies there, and a query that starts next to its goal would otherwise outweigh
    hundreds of others when its rank changes by a place or two.

    Args:
        before: percentile ranks v0.
        after: percentile ranks v1.
        goal: the rank that the attack wants. Where every query starts at the goal nothing was left to attack: 100.
    """
    start, end = before.double(), after.double()
    open_to_attack = start != goal
    missed = (1 - (end - start) / torch.where(open_to_attack, goal - start, 1.0)).clamp(0, 1)
    attacked = open_to_attack.sum(dim=-1)
    resisted = torch.where(open_to_attack, missed, 0.0).sum(dim=-1) / attacked.clamp_min(1)
    return 100 * torch.where(attacked > 0, resisted, 1.0)


def recall_resistance(before: Float[Tensor, "*samples"], after: Float[Tensor, "*samples"]) -> Float[Tensor, "*samples"]:
    """Share of the recall that an attack left, 0..100 (Eq. 31): after / before over the whole data set.

    A recall of 0 before the attack leaves nothing to resist with: 0. More recall than before counts as 100.
    """
    return torch.where(before > 0, (100 * after / before.clamp_min(1e-12)).clamp(max=100), 0.0)


def resistances(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns of Table 2 from the values of every query before and after each attack, [..., queries]."""
    ranks = {name: rank_resistance(before[name], after[name], goal) for name, goal in RANK_GOALS.items()}
    recalls = {name: recall_resistance(mean_of(before[name]), mean_of(after[name])) for name in RECALL_ATTACKS}
    return ranks | recalls


def columns(after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns of Table 1 from the values of every query after each attack, [..., queries]."""
    return {name: mean_of(after[name]) for name in ATTACK_COLUMNS}


def mean_of(values: Float[Tensor, "*samples queries"]) -> Float[Tensor, "*samples"]:
    """Mean over the queries, in double precision, so that the order of the queries does not show."""
    return values.to(torch.float64).mean(dim=-1)
