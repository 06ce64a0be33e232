"""The contract of every data set, as tests that your own data set can inherit.

from colotride.testing.datasets import DatasetContract

class TestBirds(DatasetContract):
name, root, stored_size = "birds", Path("data"), 64
"""

from pathlib import Path
from typing import Any, ClassVar

import torch

from colotride.data.base import ImageSet
from colotride.registry import DATASETS


class DatasetContract:
    """Subclasses say which data set is read from where."""

    name: ClassVar[str]
    """Under which it is registered."""
    root: ClassVar[Path] = Path("data")
    stored_size: ClassVar[int]

    def source(self) -> Any:
        """Both sides of the set."""
        return DATASETS[self.name].read(self.root, self.stored_size)

    def sides(self) -> list[ImageSet]:
        """The training and the test side."""
        source = self.source()
        return [source.train(), source.test()]

    def test_images_are_bytes_of_the_stored_size_with_one_label_each(self) -> None:
        """On both sides, read by any list of indices."""
        for side in self.sides():
            assert isinstance(side, ImageSet)
            assert side.labels.dtype == torch.int64
            assert len(side.labels) == len(side) > 0
            indices = torch.tensor([len(side) - 1, 0, 0])
            pixels = side.pixels(indices)
            assert pixels.dtype == torch.uint8
            assert pixels.shape[0] == 3
            assert pixels.shape[1] in (1, 3)
            assert pixels.shape[2:] == (self.stored_size, self.stored_size)
            assert torch.equal(pixels[1], pixels[2])

    def test_images_follow_the_stored_size_unless_they_have_a_size_of_their_own(self) -> None:
        """As the registration says, so that whoever asks for another size gets it or is refused."""
        other = DATASETS[self.name].read(self.root, self.stored_size + 1).test().pixels(torch.tensor([0]))
        assert (other.shape[-1] == self.stored_size) == DATASETS[self.name].fixed_size

    def test_both_sides_can_form_triplets_and_find_matches(self) -> None:
        """Two classes or more, and two images or more of each."""
        for side in self.sides():
            classes, counts = side.labels.unique(return_counts=True)
            assert len(classes) >= 2
            assert int(counts.min()) >= 2

    def test_a_zero_shot_set_shares_no_class_between_its_sides(self) -> None:
        """And only a zero-shot set."""
        train, test = (set(side.labels.tolist()) for side in self.sides())
        assert self.source().zero_shot == (not train & test)

    def test_reading_twice_gives_the_same(self) -> None:
        """Nothing is drawn at random."""
        for first, second in zip(self.sides(), self.sides(), strict=True):
            assert torch.equal(first.labels, second.labels)
            indices = torch.arange(min(8, len(first)))
            assert torch.equal(first.pixels(indices), second.pixels(indices))
