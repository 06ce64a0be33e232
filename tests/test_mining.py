import pytest
import torch

from colotride.errors import DataError
from colotride.mining import check_classes, mine, shrinking_margin
from tests.toys import chord, on_circle


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ANCHORS, POSITIVES = on_circle(0, 30, 90, 200), on_circle(20, 25, 95, 240)
LABELS = torch.tensor([1, 2, 3, 4])


def test_semi_hard_negatives_lie_between_the_positive_and_the_margin():
    candidates, labels = torch.cat([ANCHORS, POSITIVES]), LABELS.repeat(2)
    for seed in range(20):
        mined = mine("semi-hard", ANCHORS, POSITIVES, LABELS, 0.4, draw(seed))
        for i, chosen in enumerate(mined.negatives.tolist()):
            distance = (ANCHORS[i] - candidates).norm(dim=1)
            to_positive = (ANCHORS[i] - POSITIVES[i]).norm()
            band = [j for j in range(8) if labels[j] != LABELS[i] and to_positive < distance[j] < to_positive + 0.4]
            assert labels[chosen] != LABELS[i]
            assert not band or chosen in band


def test_semi_hard_draws_uniformly_among_those_that_qualify():
    anchors, positives = on_circle(0, 90, 180), on_circle(10, 14, 180)
    # For anchor 0 the positive is at 10 degrees; only the one at 14 lies within 0.2 beyond it, plus none other.
    only = mine("semi-hard", anchors, positives, torch.tensor([0, 1, 2]), 0.2, draw(0))
    assert only.negatives[0] == 4
    wide = [
        mine("semi-hard", anchors, positives, torch.tensor([0, 1, 2]), 2.0, draw(s)).negatives[0] for s in range(400)
    ]
    counts = torch.bincount(torch.stack(wide), minlength=6)
    assert counts[[0, 3]].sum() == 0
    assert (counts[[1, 2, 4, 5]] > 60).all(), counts


def test_the_share_without_a_qualified_negative_is_reported():
    # Anchor 0: its positive is at chord(60) and the negatives are nearer, so none qualifies. Anchor 1: one does.
    anchors, positives = on_circle(0, 20), on_circle(60, 22)
    assert chord(20) < chord(60)
    mined = mine("semi-hard", anchors, positives, torch.tensor([0, 1]), 0.5, draw(0))
    assert mined.unqualified.item() == 0.5


def test_random_mining_reaches_every_other_class_and_never_the_own():
    seen = {mine("random", ANCHORS, POSITIVES, LABELS, 0.2, draw(s)).negatives[0].item() for s in range(200)}
    assert seen == {1, 2, 3, 5, 6, 7}


def test_mining_follows_its_generator():
    first = mine("random", ANCHORS, POSITIVES, LABELS, 0.2, draw(3)).negatives
    assert torch.equal(first, mine("random", ANCHORS, POSITIVES, LABELS, 0.2, draw(3)).negatives)


def test_a_batch_of_one_class_is_refused_with_its_cause():
    with pytest.raises(DataError, match=r"3 pairs holds only class \[7\]: no anchor has a negative"):
        check_classes(torch.tensor([7, 7, 7]))


def test_the_semi_hard_band_shrinks_to_a_quarter():
    assert shrinking_margin(0.2, 0, 100) == pytest.approx(0.2)
    assert shrinking_margin(0.2, 50, 100) == pytest.approx(0.2 * 0.75**2)
    assert shrinking_margin(0.2, 100, 100) == pytest.approx(0.05)
