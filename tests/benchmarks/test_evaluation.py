"""The benchmark of evaluations runs both forms of the same work."""

import pytest
import torch

from colotride.evaluation.retrieval import retrieval_values
from scripts.benchmarks.evaluation import measure_galleries, measure_whole, random_gallery

pytestmark = pytest.mark.slow


def test_every_size_has_a_row_and_the_smallest_is_compared_with_the_loop():
    seen = []
    small, large = measure_galleries((60, 120), 1, seen.append)
    assert (small.images, large.images) == (60, 120)
    assert small.loop is not None
    assert large.loop is None
    assert seen == ["ours", "loop", "ours", "loop", "ours", "ours"]


def test_the_gallery_can_be_retrieved_but_not_perfectly():
    hits = retrieval_values(random_gallery(500), torch.arange(500), (1,))["R@1"].mean()
    assert 20 < hits < 99.9


@pytest.mark.parametrize("protocol", ["strict", "strong"])
def test_a_whole_evaluation_takes_longer_than_its_passes(protocol):
    row = measure_whole(60, 4, 6, 1, torch.device("cpu"), lambda name: None, protocol)
    assert row.protocol == protocol
    assert row.queries == 4
    assert row.over_passes > 1
