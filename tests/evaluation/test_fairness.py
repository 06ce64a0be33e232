"""Scores per class against a loop over classes that scores each one's queries alone."""

import pytest
import torch

from colotride.evaluation.fairness import class_scores, fairness_measurement
from colotride.evaluation.scores import ATTACK_COLUMNS, scores_of


def values(seed, count):
    random = torch.Generator().manual_seed(seed)
    drawn = {name: 100 * torch.rand(count, generator=random) for name in ATTACK_COLUMNS}
    return drawn | {name: drawn[name].round(decimals=-2) for name in ("ES:R", "LTM", "GTM", "GTT")}


def scene():
    random = torch.Generator().manual_seed(4)
    labels = torch.tensor([3, 7, 12, 40]).repeat(10)[torch.randperm(40, generator=random)]
    queries = torch.randperm(40, generator=random)[:25].sort().values
    queries = queries[labels[queries] != 12]
    benign = {
        "R@1": 100.0 * torch.randint(0, 2, (40,), generator=random),
        "mAP": 100 * torch.rand(40, generator=random),
    }
    return labels, queries, benign, values(1, len(queries)), values(2, len(queries))


@pytest.mark.parametrize("resistance", ["mean of ratios", "ratio of means"])
def test_each_class_scores_what_it_would_alone(resistance):
    labels, queries, benign, before, after = scene()
    found = class_scores(benign, labels, before, after, queries, resistance)
    assert found["class"].tolist() == [3, 7, 40], "a class that nobody attacked has no score"
    for row, label in enumerate([3, 7, 40]):
        chosen = labels[queries] == label
        alone = scores_of(*({n: v[chosen] for n, v in each.items()} for each in (before, after)), resistance)
        assert {name: float(found[name][row]) for name in alone} == pytest.approx(alone)
        assert int(found["queries"][row]) == int(chosen.sum())
        assert float(found["R@1"][row]) == pytest.approx(float(benign["R@1"][labels == label].mean()))


def test_the_table_of_known_scores():
    scores = {"class": torch.arange(20), "queries": torch.full((20,), 5), "ERS": torch.arange(20.0).flip(0).double()}
    row = fairness_measurement(scores).rows["ERS"]
    assert row["mean of classes"] == 9.5
    assert row["worst decile"] == 0.5, "the mean of the worst two of twenty"
    assert (row["worst class"], row["best class"], row["label of the worst"]) == (0, 19, 19)
    assert row["spread"] == pytest.approx((sum((k - 9.5) ** 2 for k in range(20)) / 20) ** 0.5)
