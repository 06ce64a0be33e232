import numpy as np
import pytest
import torch

from colotride.evaluation import ranking, retrieval
from colotride.evaluation.gallery import ClassMembers, Gallery
from colotride.evaluation.retrieval import clusterings, nmi, retrieval_values
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
    moved, items = gallery.embeddings.flip(0), ALL.roll(1)

    def everything():
        return [
            *scores(gallery, ALL, (1, 2)).values(),
            *ranking.percentile_rank(gallery, moved, gallery.embeddings[items], ALL, items).tolist(),
            *ranking.first_result_is_match(gallery, moved, ALL).tolist(),
            *ranking.in_first_results(gallery, moved, ALL, items, 4).tolist(),
        ]

    whole = everything()
    monkeypatch.setattr("colotride.evaluation.gallery.BLOCK_BYTES", 1)
    assert everything() == pytest.approx(whole)


@pytest.mark.parametrize("labels", [ALL % 2, torch.cat([torch.zeros(2, dtype=torch.long), ALL[2:] % 3 + 1])])
def test_counting_before_each_match_and_placing_every_image_are_the_same(monkeypatch, labels):
    gallery = Gallery(toy_gallery().embeddings, labels)
    monkeypatch.setattr(retrieval, "FEW_MATCHES", 10**9)
    counted = retrieval.match_ranks(gallery, ALL)
    monkeypatch.setattr(retrieval, "FEW_MATCHES", 0)
    for one, other in zip(counted, retrieval.match_ranks(gallery, ALL), strict=True):
        assert torch.equal(one, other)


def test_members_are_the_images_of_each_class_and_matches_leave_out_the_query():
    members, is_match = ClassMembers.of(torch.tensor([7, -2, 7, 5, 7, -2]))(torch.tensor([4, 1, 3]))
    found = [sorted(row[chosen].tolist()) for row, chosen in zip(members, is_match, strict=True)]
    assert found == [[0, 2], [5], []]
    assert [set(row.tolist()) for row in members] == [{0, 2, 4}, {1, 5}, {3}]


def test_perfect_clusters_are_retrieved_perfectly():
    gallery = Gallery(on_circle(0, 1, 2, 120, 121, 122, 240, 241), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]))
    got = scores(gallery, torch.arange(8), (1,)) | {"NMI": nmi(gallery.labels, clusterings(gallery, 1, seed=0))}
    assert got == pytest.approx({"R@1": 100, "mAP": 100, "mAP@R": 100, "NMI": 100})


def test_nmi_of_classes_that_have_nothing_to_do_with_the_clusters_is_zero():
    embeddings = on_circle(*[0, 1, 2, 3] * 2, *[180, 181, 182, 183] * 2)
    gallery = Gallery(embeddings, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1] * 2))
    assert nmi(gallery.labels, clusterings(gallery, 1, seed=0)) == pytest.approx(0, abs=1e-6)


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


def shrunken(scale, count=200, dim=16, dtype=torch.float32, seed=0):
    """Unit vectors of clustered classes in a small cap of the sphere, as adversarially trained models make them."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    centres = torch.randn(10, dim, generator=random, dtype=torch.float64)
    points = centres[labels] + 0.7 * torch.randn(count, dim, generator=random, dtype=torch.float64)
    pole = torch.full((dim,), dim**-0.5, dtype=torch.float64)
    return Gallery(torch.nn.functional.normalize(pole + scale * points, dim=1).to(dtype), labels)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-3, 1e-4, 1e-5])
def test_ranks_and_recall_of_shrunken_embeddings_are_those_of_double_precision(scale):
    """Distances from differences in double precision, sorted query by query."""
    gallery = shrunken(scale)
    exact = gallery.embeddings.double().numpy()
    away = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    queries = torch.arange(200)
    items = (queries + 7) % 200
    rank = ranking.percentile_rank(gallery, gallery.embeddings, gallery.embeddings[items], queries, items)
    hits = ranking.first_result_is_match(gallery, gallery.embeddings, queries)
    recall = retrieval_values(gallery, queries, (1,))["R@1"]
    kept = ranking.in_first_results(gallery, gallery.embeddings, queries, items, 100)
    for query in range(200):
        item, rest = int(items[query]), others_of(query, int(items[query]))
        nearer = (away[query, rest] < away[query, item]).sum() + (away[query, rest] == away[query, item]).sum() / 2
        assert float(rank[query]) == pytest.approx(100 * nearer / 198, abs=1e-4)
        order = sorted(others_of(query), key=lambda j, query=query: away[query, j])
        hit = 100 * float(gallery.labels[order[0]] == gallery.labels[query])
        assert float(hits[query]) == float(recall[query]) == hit
        assert float(kept[query]) == 100 * float(item in order[:100])


def others_of(*left_out):
    return [index for index in range(200) if index not in left_out]


def test_double_precision_embeddings_are_compared_in_double_precision():
    gallery = shrunken(1e-9, dtype=torch.float64)
    assert gallery.embeddings.float().unique(dim=0).shape[0] < 30, "float32 would not tell them apart"
    reference = shrunken(1e-3, dtype=torch.float64)
    queries = torch.arange(200)
    near, far = (
        ranking.percentile_rank(
            each, each.embeddings, each.embeddings[(queries + 7) % 200], queries, (queries + 7) % 200
        )
        for each in (gallery, reference)
    )
    assert float((near - far).abs().max()) < 2


@pytest.mark.parametrize("degrees", [0, 13, 77.7, 211])
@pytest.mark.parametrize("dim", [2, 384])
def test_a_constant_model_ranks_50_whatever_its_direction(degrees, dim):
    """Also where one side of the comparison is an image's embedding computed apart from the gallery's."""
    point = torch.nn.functional.normalize(
        torch.randn(dim, generator=torch.Generator().manual_seed(int(degrees))), dim=0
    )
    gallery = Gallery(point.expand(41, dim).contiguous(), torch.arange(41) % 3)
    queries = torch.arange(41)
    items = (queries + 1) % 41
    for query_side, item_side in (
        (point.expand(41, dim).clone(), gallery.embeddings),
        (gallery.embeddings, gallery.embeddings[items]),
    ):
        assert ranking.percentile_rank(gallery, query_side, item_side, queries, items).tolist() == [50] * 41
    assert ranking.first_result_is_match(gallery, gallery.embeddings, queries).tolist() == [0] * 41
    assert ranking.in_first_results(gallery, gallery.embeddings, queries, items, 4).tolist() == [0] * 41
    assert retrieval_values(gallery, queries, (1, 2))["R@2"].tolist() == [0] * 41
