"""Intervals against the textbook's formulas and a plain bootstrap in numpy."""

import numpy as np
import pytest
import torch

from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.intervals import attack_intervals, attack_scores, benign_intervals, nmi_interval
from colotride.evaluation.results import load_evaluation, save_evaluation
from colotride.evaluation.retrieval import nmi
from colotride.evaluation.settings import EvaluationSettings
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel

NAMES = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_interval_of_a_share_is_that_of_the_normal_approximation():
    hits = 100.0 * (torch.arange(1000) < 300)
    low, high = benign_intervals({"R@1": hits}, 4000, draw())["R@1"]
    half = 1.96 * 100 * (0.3 * 0.7 / 1000) ** 0.5
    assert (low, high) == pytest.approx((30 - half, 30 + half), abs=0.15)


def test_fewer_images_have_wider_intervals():
    def width(images):
        low, high = benign_intervals({"R@1": 100.0 * (torch.arange(images) % 2)}, 1000, draw())["R@1"]
        return high - low

    assert width(100) == pytest.approx(width(1600) * 4, rel=0.15)


def values(seed, queries=200):
    random = draw(seed)
    return {name: 100 * torch.rand(queries, generator=random) for name in NAMES}


def test_attack_scores_are_resampled_with_the_same_queries_for_every_attack():
    before, after = values(0), {name: each / 2 for name, each in values(1).items()}
    got = attack_intervals(before, after, 3000, draw())
    random, found = np.random.default_rng(0), {"ERS": [], "ARS": [], "ARS LTM": []}
    for _ in range(3000):
        chosen = torch.from_numpy(random.integers(0, 200, 200))
        scores = attack_scores({n: v[chosen] for n, v in before.items()}, {n: v[chosen] for n, v in after.items()})
        for name, each in found.items():
            each.append(float(scores[name]))
    for name, each in found.items():
        low, high = np.quantile(each, [0.025, 0.975])
        assert got[name] == pytest.approx((low, high), abs=0.15 * (high - low)), name


def test_every_score_lies_in_its_interval_and_has_one():
    settings = EvaluationSettings(steps=2, epsilon=0.1, step_size=0.05, bootstrap=100)
    result = evaluate(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))
    assert set(result.intervals) == set(result.scores())
    for name, score in result.scores().items():
        low, high = result.intervals[name]
        assert low - 1e-6 <= score <= high + 1e-6, name


def test_the_interval_of_nmi_holds_nmi_although_resamples_repeat_images():
    labels = torch.arange(60) % 20
    assigned = torch.where(torch.arange(60) < 40, labels, (labels + torch.arange(60)) % 20)
    low, high = nmi_interval(labels, assigned, 200, draw())
    assert low < nmi(labels, assigned) < high


def test_results_come_back_from_their_files_and_scores_follow_from_the_tables(tmp_path):
    settings = EvaluationSettings(steps=2, epsilon=0.1, step_size=0.05, queries=11, bootstrap=10)
    result = evaluate(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))
    save_evaluation(result, tmp_path)
    again = load_evaluation(tmp_path)
    assert again == result
    for name in NAMES:
        for what in ("query", "target", "before", "after"):
            assert torch.equal(again.per_query[name][what], result.per_query[name][what])
    scores = attack_scores(*({n: v[when] for n, v in again.per_query.items()} for when in ("before", "after")))
    assert float(scores["ARS"]) == pytest.approx(result.ARS)
    assert float(again.per_image["R@1"].double().mean()) == pytest.approx(result.benign["R@1"])
    assert nmi(again.per_image["label"], again.per_image["cluster"]) == pytest.approx(result.benign["NMI"])
