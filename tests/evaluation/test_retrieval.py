import numpy as np
import pytest
import torch

from colotride.evaluation import ranking, retrieval
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.retrieval import clusters, nmi, retrieval_values
from tests.evaluation.galleries import d, others, ranked, shaken, toy_gallery
from tests.toys import on_circle

ALL = torch.arange(30)


def scores(gallery, queries, recall_at):
    return {name: float(values.mean()) for name, values in retrieval_values(gallery, queries, recall_at).items()}


def test_recall_map_and_map_at_r_are_those_of_a_loop_over_queries():
    gallery = toy_gallery()
    expected = {"R@1": [], "R@2": [], "R@4": [], "mAP": [], "mAP@R": []}
    for query in range(30):
        hits = np.array([bool(gallery.labels[j] == gallery.labels[query]) for j in ranked(gallery, query)])
        for k in (1, 2, 4):
            expected[f"R@{k}"].append(hits[:k].any())
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        relevant = hits.sum()
        expected["mAP"].append((precision * hits).sum() / relevant)
        expected["mAP@R"].append((precision * hits)[:relevant].sum() / relevant)
    got = scores(gallery, ALL, (1, 2, 4))
    assert got == pytest.approx({name: 100 * np.mean(values) for name, values in expected.items()})


def test_chunks_change_nothing(monkeypatch):
    gallery = toy_gallery()
    whole = scores(gallery, ALL, (1, 2))
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", 1)
    assert scores(gallery, ALL, (1, 2)) == pytest.approx(whole)


def test_perfect_clusters_are_retrieved_perfectly():
    gallery = Gallery(on_circle(0, 1, 2, 120, 121, 122, 240, 241), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]))
    got = scores(gallery, torch.arange(8), (1,)) | {"NMI": nmi(gallery.labels, clusters(gallery, seed=0))}
    assert got == pytest.approx({"R@1": 100, "mAP": 100, "mAP@R": 100, "NMI": 100})


def test_nmi_of_classes_that_have_nothing_to_do_with_the_clusters_is_zero():
    embeddings = on_circle(*[0, 1, 2, 3] * 2, *[180, 181, 182, 183] * 2)
    gallery = Gallery(embeddings, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1] * 2))
    assert nmi(gallery.labels, clusters(gallery, seed=0)) == pytest.approx(0, abs=1e-6)


def test_a_tie_counts_against_the_match():
    # Query at 0; a match and a non-match both at 30 degrees, on either side.
    gallery = Gallery(on_circle(0, 30, 30, 90), torch.tensor([0, 0, 1, 1]))
    ranks, relevant = retrieval.match_ranks(gallery, torch.tensor([0]))
    assert ranks[0, 0] == 2
    assert relevant.tolist() == [1]
    assert ranking.first_result_is_match(gallery, gallery.embeddings[:1], torch.tensor([0])).tolist() == [0]


def test_a_model_that_maps_everything_to_one_point_retrieves_nothing_and_ranks_in_the_middle():
    gallery = Gallery(on_circle(*[0] * 6), torch.tensor([0, 0, 0, 1, 1, 1]))
    queries = torch.arange(6)
    assert scores(gallery, queries, (1, 2))["R@2"] == 0
    items = (queries + 1) % 6
    rank = ranking.percentile_rank(gallery, gallery.embeddings, gallery.embeddings[items], queries, items)
    assert rank.tolist() == [50] * 6


def test_percentile_rank_is_that_of_a_loop():
    gallery, random = toy_gallery(), torch.Generator().manual_seed(3)
    queries = torch.randperm(30, generator=random)[:10]
    items = (queries + torch.randint(1, 30, (10,), generator=random)) % 30
    moved_queries, moved_items = shaken(gallery, queries, seed=1), shaken(gallery, items, seed=2)
    got = ranking.percentile_rank(gallery, moved_queries, moved_items, queries, items)
    for row in range(10):
        rest = others(gallery, int(queries[row]), int(items[row]))
        nearer = sum(
            d(moved_queries[row], gallery.embeddings[j]) < d(moved_queries[row], moved_items[row]) for j in rest
        )
        assert got[row].item() == pytest.approx(100 * nearer / 28, abs=1e-4)


def test_first_result_and_first_results_are_those_of_a_loop():
    gallery = toy_gallery()
    moved = shaken(gallery, ALL)
    targets = (ALL + 5) % 30
    hit = ranking.first_result_is_match(gallery, moved, ALL)
    kept = ranking.in_first_results(gallery, moved, ALL, targets, k=4)
    for query in range(30):
        results = ranked(gallery, query, moved[query])
        assert bool(hit[query]) == bool(gallery.labels[results[0]] == gallery.labels[query])
        assert bool(kept[query]) == (int(targets[query]) in results[:4])
    assert 0 < hit.sum() < 3000
    assert 0 < kept.sum() < 3000
