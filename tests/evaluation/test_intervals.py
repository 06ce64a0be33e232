"""Intervals against the textbook's formulas, scipy's BCa bootstrap and a slow jackknife."""

import numpy as np
import pytest
import torch
from scipy import stats

from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.intervals import attack_intervals, benign_intervals, difference_intervals, nmi_interval
from colotride.evaluation.results import load_evaluation, save_evaluation
from colotride.evaluation.retrieval import clusterings, nmi
from colotride.evaluation.scores import attack_scores, mean_of, moments, scores_of
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


def values(seed, queries=150):
    """Skewed, as ranks are."""
    random = draw(seed)
    return {name: 100 * torch.rand(queries, generator=random) ** 3 for name in NAMES}


def by_scipy(statistic, queries, samples=3000):
    """scipy's BCa interval of a statistic of row numbers; the rows are (..., queries), the statistic is (...)."""
    found = stats.bootstrap(
        (np.arange(queries),),
        lambda rows, axis: statistic(np.moveaxis(rows, axis, -1)),
        n_resamples=samples,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return found.low, found.high


def scores_by_rows(before, after, resistance):
    """A function of row numbers: every score of the queries in these rows."""
    single = moments(before, after)

    def scores(rows):
        return attack_scores(
            {name: mean_of(each[torch.from_numpy(rows.copy())]) for name, each in single.items()}, resistance
        )

    return scores


@pytest.mark.parametrize("score", ["ERS", "ARS", "ARS CA+"])
@pytest.mark.parametrize("resistance", ["mean of ratios", "ratio of means"])
def test_intervals_are_scipys_bca_with_the_same_queries_for_every_attack(score, resistance):
    before, after = values(0), {name: each / 2 for name, each in values(1).items()}
    scores = scores_by_rows(before, after, resistance)
    low, high = by_scipy(lambda rows: scores(rows)[score].numpy(), 150)
    got = attack_intervals(before, after, resistance, 6000, draw())[score]
    assert got == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_interval_of_a_skewed_mean_is_scipys_and_not_the_plain_percentiles():
    hits = 100.0 * (torch.arange(60) < 3)
    found = stats.bootstrap((hits.numpy(),), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(0))
    low, high = benign_intervals({"R@1": hits}, 20000, draw())["R@1"]
    assert (low, high) == pytest.approx(tuple(found.confidence_interval), abs=0.35)
    plain = stats.bootstrap(
        (hits.numpy(),), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(0)
    )
    assert high > plain.confidence_interval.high + 1


def test_differences_are_paired_and_scipys():
    """Two models that find the same queries hard differ more surely than their own intervals say."""
    before, after = values(0), {name: each / 2 for name, each in values(1).items()}
    better = {name: each + 3 + values(2)[name] / 50 for name, each in after.items()}
    got = difference_intervals((before, better), (before, after), "mean of ratios", 6000, draw())["ERS"]

    one, other = (scores_by_rows(before, each, "mean of ratios") for each in (better, after))
    low, high = by_scipy(lambda rows: (one(rows)["ERS"] - other(rows)["ERS"]).numpy(), 150)
    assert got == pytest.approx((low, high), abs=0.1 * (high - low))
    alone = attack_intervals(before, after, "mean of ratios", 1000, draw())["ERS"]
    assert high - low < 0.3 * (alone[1] - alone[0])


def test_where_every_image_agrees_the_interval_is_a_point():
    assert benign_intervals({"R@1": torch.full((9,), 100.0)}, 50, draw()) == {"R@1": (100, 100)}


def test_every_score_lies_in_its_interval_and_has_one():
    settings = EvaluationSettings(steps=2, epsilon=0.1, step_size=0.05, bootstrap=100)
    result = evaluate(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))
    assert set(result.intervals) == set(result.scores())
    for name, score in result.scores().items():
        low, high = result.intervals[name]
        assert low - 1e-6 <= score <= high + 1e-6, name


def nmi_scene():
    labels = torch.arange(60) % 20
    return labels, torch.where(torch.arange(60) < 40, labels, (labels + torch.arange(60)) % 20)


def test_the_interval_of_nmi_is_that_of_a_slow_jackknife():
    labels, assigned = nmi_scene()
    kept = [torch.arange(60) != image for image in range(60)]
    without = np.array([nmi(labels[rows], assigned[None, rows]) for rows in kept])
    half = 1.96 * np.sqrt(59 / 60 * ((without - without.mean()) ** 2).sum())
    score = nmi(labels, assigned[None])
    assert nmi_interval(labels, assigned[None]) == pytest.approx((score - half, score + half), abs=1e-2)


def test_starts_of_k_means_that_disagree_widen_the_interval_of_nmi():
    labels, assigned = nmi_scene()
    worse = torch.where(torch.arange(60) < 20, labels, (labels + torch.arange(60)) % 20)
    both = torch.stack([assigned, worse])
    kept = [torch.arange(60) != image for image in range(60)]
    without = np.array([nmi(labels[rows], both[:, rows]) for rows in kept])
    images = 59 / 60 * ((without - without.mean()) ** 2).sum()
    starts = np.var([nmi(labels, both[:1]), nmi(labels, both[1:])], ddof=1) / 2
    score, half = nmi(labels, both), 1.96 * np.sqrt(images + starts)
    assert nmi_interval(labels, both) == pytest.approx((score - half, score + half), abs=1e-2)
    assert half > 1.05 * 1.96 * np.sqrt(images), "the starts differ visibly"


def test_nmi_is_the_mean_over_starts_and_so_moves_less():
    random = draw()
    embeddings = torch.nn.functional.normalize(torch.randn(120, 6, generator=random), dim=1)
    gallery = Gallery(embeddings, torch.arange(120) % 12)
    one, five = ([nmi(gallery.labels, clusterings(gallery, starts, seed)) for seed in range(12)] for starts in (1, 5))
    assert np.std(five) < 0.7 * np.std(one)


def test_results_come_back_from_their_files_and_scores_follow_from_the_tables(tmp_path):
    settings = EvaluationSettings(steps=2, epsilon=0.1, step_size=0.05, queries=11, bootstrap=10)
    result = evaluate(FlatModel(), toy_images(), settings, image_size=2, seed=0, device=torch.device("cpu"))
    save_evaluation(result, tmp_path)
    again = load_evaluation(tmp_path)
    assert again == result
    for name in NAMES:
        for what in ("query", "target", "before", "after"):
            assert torch.equal(again.per_query[name][what], result.per_query[name][what])
    both = ({n: v[when] for n, v in again.per_query.items()} for when in ("before", "after"))
    assert scores_of(*both, "mean of ratios")["ARS"] == pytest.approx(result.ARS)
    assert float(again.per_image["R@1"].double().mean()) == pytest.approx(result.benign["R@1"])
    starts = torch.stack([again.per_image[f"cluster {start}"] for start in range(5)])
    assert nmi(again.per_image["label"], starts) == pytest.approx(result.benign["NMI"])
