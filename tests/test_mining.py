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


def batch_of(seed, pairs=6, classes=3, dim=4):
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(2 * pairs, dim, generator=random), dim=1)
    return embeddings[:pairs], embeddings[pairs:], torch.arange(pairs) % classes


def test_the_hardest_negative_is_the_nearest():
    anchors, positives, labels = batch_of(0)
    images, classes = torch.cat([anchors, positives]), labels.repeat(2)
    mined = mine("hardest", anchors, positives, labels, 0.2, draw(0))
    for i, chosen in enumerate(mined.negatives.tolist()):
        others = [j for j in range(12) if classes[j] != labels[i]]
        assert chosen == min(others, key=lambda j: float((anchors[i] - images[j]).norm()))
    assert torch.equal(mined.positives, torch.arange(6, 12))


def test_softhard_takes_positives_beyond_the_nearest_negative_and_negatives_before_the_farthest_positive():
    for seed in range(10):
        anchors, positives, labels = batch_of(seed)
        images, classes = torch.cat([anchors, positives]), labels.repeat(2)
        mined = mine("softhard", anchors, positives, labels, 0.2, draw(seed))
        for i in range(6):
            away = [float((anchors[i] - image).norm()) for image in images]
            own = [j for j in range(12) if classes[j] == labels[i] and j != i]
            others = [j for j in range(12) if classes[j] != labels[i]]
            hard_own = [j for j in own if away[j] > min(away[k] for k in others)]
            hard_others = [j for j in others if away[j] < max(away[k] for k in own)]
            assert mined.positives[i] in (hard_own or [i + 6])
            assert mined.negatives[i] in (hard_others or others)


def test_softhard_never_takes_the_anchor_for_its_own_positive_and_reaches_every_hard_one():
    # Two pairs of one class, spread widely, with a negative pair between: every other image of the class is hard.
    anchors, positives = on_circle(0, 90, 10), on_circle(180, 270, 10)
    labels = torch.tensor([0, 0, 1])
    chosen = [mine("softhard", anchors, positives, labels, 0.2, draw(s)).positives[0].item() for s in range(200)]
    assert set(chosen) == {1, 3, 4}


@pytest.mark.slow
def test_distance_weighted_mining_draws_by_the_inverse_density_of_distances():
    """Three negatives at known distances, in three dimensions, where the density is d: weights 1/d."""
    degrees = (35.0, 50.0, 80.0)
    flat = on_circle(0, *degrees, 0, *degrees)
    points = torch.cat([flat, torch.zeros(8, 1)], dim=1)
    labels = torch.tensor([0, 1, 2, 3])
    draws = [mine("distance-weighted", points[:4], points[4:], labels, 0.2, draw(s)).negatives[0] for s in range(3000)]
    counts = torch.bincount(torch.stack(draws) % 4, minlength=4)[1:].double()
    weights = torch.tensor([1 / chord(angle) for angle in degrees], dtype=torch.float64)
    torch.testing.assert_close(counts / 3000, weights / weights.sum(), atol=0.03, rtol=0)


def test_distance_weighted_mining_passes_over_negatives_without_loss_unless_there_are_no_others():
    anchors, positives = on_circle(0, 60, 170), on_circle(0, 60, 170)
    labels = torch.tensor([0, 1, 2])
    chosen = {
        mine("distance-weighted", anchors, positives, labels, 0.2, draw(s)).negatives[0].item() for s in range(60)
    }
    assert chosen == {1, 4}
    lonely = mine("distance-weighted", anchors[[0, 2]], positives[[0, 2]], labels[:2], 0.2, draw(0))
    assert lonely.unqualified == 1


@pytest.mark.parametrize("miner", ["random", "semi-hard", "softhard", "distance-weighted", "hardest"])
def test_every_miner_follows_its_generator_and_takes_other_classes(miner):
    anchors, positives, labels = batch_of(4)
    one, same = (mine(miner, anchors, positives, labels, 0.2, draw(7)) for _ in range(2))
    assert torch.equal(one.negatives, same.negatives)
    assert torch.equal(one.positives, same.positives)
    assert (labels.repeat(2)[one.negatives] != labels).all()
    assert (labels.repeat(2)[one.positives] == labels).all()
