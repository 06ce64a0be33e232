import pytest
import torch

from colotride.data.sampling import pair_batches
from colotride.errors import DataError

LABELS = torch.tensor([0] * 7 + [1] * 4 + [2] * 9 + [5] * 2)


def test_a_pair_is_two_different_images_of_one_class():
    pairs = pair_batches(LABELS, 4, 40, seed=0, epoch=0).flatten(0, 1)
    assert torch.equal(LABELS[pairs[:, 0]], LABELS[pairs[:, 1]])
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_one_pass_uses_every_image_once_except_the_odd_ones_mates():
    pairs = pair_batches(LABELS, 12, None, seed=3, epoch=1).flatten(0, 1)
    counts = torch.bincount(pairs.flatten(), minlength=22)
    assert len(pairs) == 4 + 2 + 5 + 1
    assert counts.min() == 1
    assert counts.sum() - 22 == 2, "the classes with 7 and 9 images borrow one mate each"


def test_an_epoch_follows_from_its_seed_and_number_alone():
    one = pair_batches(LABELS, 4, 20, seed=1, epoch=5)
    pair_batches(LABELS, 4, 20, seed=1, epoch=6)
    assert torch.equal(one, pair_batches(LABELS, 4, 20, seed=1, epoch=5))
    assert not torch.equal(one, pair_batches(LABELS, 4, 20, seed=1, epoch=6))
    assert not torch.equal(one, pair_batches(LABELS, 4, 20, seed=2, epoch=5))


@pytest.mark.parametrize(("asked", "shape"), [(None, (3, 4, 2)), (8, (2, 4, 2)), (50, (12, 4, 2)), (3, (1, 3, 2))])
def test_an_epoch_has_as_many_whole_batches_as_its_pairs_make(asked, shape):
    assert pair_batches(LABELS, 4, asked, seed=0, epoch=0).shape == shape


def test_fewer_pairs_than_a_batch_make_one_smaller_batch():
    assert pair_batches(LABELS, 100, None, seed=0, epoch=0).shape == (1, 12, 2)


@pytest.mark.parametrize("epoch", range(20))
def test_every_batch_has_two_classes_however_unbalanced_they_are(epoch):
    labels = torch.tensor([0] * 90 + [1] * 60 + [2] * 4)
    classes = labels[pair_batches(labels, 3, 76, seed=0, epoch=epoch)[:, :, 0]]
    assert (classes != classes[:, :1]).any(dim=1).all()


def test_swapping_pairs_between_batches_loses_none():
    labels = torch.tensor([0] * 30 + [1] * 30)
    for epoch in range(10):
        pairs = pair_batches(labels, 3, None, seed=0, epoch=epoch).flatten()
        assert torch.equal(pairs.sort().values, torch.arange(60))


def test_batches_that_cannot_have_two_classes_are_refused_with_the_cause():
    with pytest.raises(DataError, match="holds only class 0: no anchor has a negative"):
        pair_batches(torch.tensor([0] * 90 + [1] * 2), 4, None, seed=0, epoch=0)


def test_sixty_thousand_images_of_eleven_thousand_classes_are_paired():
    labels = (torch.arange(60_000) * 7919) % 11_318
    batches = pair_batches(labels, 56, None, seed=0, epoch=0)
    assert batches.shape[0] == int(((torch.bincount(labels) + 1) // 2).sum()) // 56
    assert torch.equal(labels[batches[..., 0]], labels[batches[..., 1]])
