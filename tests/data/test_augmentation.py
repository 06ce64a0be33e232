import pytest
import torch

from colotride.data.augmentation import TrainingCrops, evaluation_view
from colotride.errors import DataError
from colotride.randomness import derive_seed, generator


def stored(count=6, size=9):
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=random, dtype=torch.uint8)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def training_view(pixels, image_size, flip, random):
    return TrainingCrops.draw(len(pixels), image_size, flip, random)(pixels, torch.arange(len(pixels)))


def test_crops_and_flips_are_what_an_obvious_loop_makes_of_the_same_draws():
    pixels = stored()
    got = training_view(pixels, 6, True, draw(4))
    draws = torch.rand(3, 6, generator=draw(4))
    for index in range(6):
        top, left = int(draws[0, index] * 4), int(draws[1, index] * 4)
        expected = pixels[index, :, top : top + 6, left : left + 6].float() / 255
        if draws[2, index] < 0.5:
            expected = expected.flip(2)
        torch.testing.assert_close(got[index], expected)


def test_an_image_is_cut_alike_whether_it_is_read_with_its_batch_or_alone():
    pixels = stored()
    crops = TrainingCrops.draw(6, 6, True, draw(4))
    whole = crops(pixels, torch.arange(6))
    for places in (torch.tensor([4]), torch.tensor([5, 0, 2, 2])):
        assert torch.equal(crops(pixels[places], places), whole[places])


def test_every_crop_position_and_both_orientations_occur():
    ramp = torch.arange(8, dtype=torch.uint8).view(1, 1, 1, 8).expand(1000, 1, 8, 8).contiguous()
    corner = (training_view(ramp, 5, True, draw()) * 255).round().long()
    flipped = corner[:, 0, 0, 0] > corner[:, 0, 0, -1]
    assert 400 < int(flipped.sum()) < 600
    assert set(corner.amin(dim=(1, 2, 3)).tolist()) == {0, 1, 2, 3}


def test_without_room_and_flip_nothing_is_random():
    pixels = stored(size=5)
    torch.testing.assert_close(training_view(pixels, 5, False, draw()), pixels.float() / 255)


def test_the_evaluation_view_is_the_centre():
    pixels = stored(size=10)
    torch.testing.assert_close(evaluation_view(pixels, 6), pixels[:, :, 2:8, 2:8].float() / 255)


def test_streams_depend_on_their_purpose_and_not_on_the_order_of_use():
    first = torch.rand(3, generator=generator(1, "mining", 2, 3))
    torch.rand(5, generator=generator(1, "sampling", 0))
    assert torch.equal(first, torch.rand(3, generator=generator(1, "mining", 2, 3)))
    seeds = {
        derive_seed(1, "mining", 2, 3),
        derive_seed(1, "mining", 23),
        derive_seed(1, "mining", 3, 2),
        derive_seed(2, "mining", 2, 3),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_crop_larger_than_the_images_is_refused_and_not_cut_from_a_negative_start():
    for view in (lambda: evaluation_view(stored(), 10), lambda: training_view(stored(), 10, True, draw())):
        with pytest.raises(DataError, match="images of 9 x 9 px have no crop of 10 px; set image_size to 9 or less"):
            view()
