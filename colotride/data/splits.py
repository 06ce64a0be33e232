"""The parts of a data set: training, validation taken from the training side, and test."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from colotride.data import cars, cub, digits, fashion_mnist, folder, manifest, sop  # noqa: F401  (they register)
from colotride.data.archives import ARCHIVES
from colotride.data.base import ImageSet, Source, check_matches, subset_of
from colotride.data.cache import CachedImages, cached_images, verify_cache
from colotride.data.progress import notify
from colotride.data.remote import push, remote_source
from colotride.data.settings import DataSettings
from colotride.errors import DataError
from colotride.randomness import generator
from colotride.registry import DATASETS


@dataclass(frozen=True)
class Splits:
    """The parts of a data set that a run uses."""

    train: ImageSet
    validation: ImageSet | None
    """Held out from the training side; None when everything is trained on."""
    read_test: Callable[[], ImageSet]

    @cached_property
    def test(self) -> ImageSet:
        """The test side, read when it is first used; a search never uses it."""
        return self.read_test()


def load_splits(settings: DataSettings) -> Splits:
    """Read the training side of a data set and hold out its validation part when the settings say so.

    Zero-shot sets hold out whole classes (the last ones of the training side), closed sets hold out images of every
    class. Which ones does not depend on the run's seed: all runs of a search validate on the same images. Sets of
    image files are decoded once, into a cache (see `colotride.data.cache`).

    Raises:
        DataError: the set is missing, incomplete, of another image size, or cannot form triplets.
    """
    source = load_source(settings)
    side = source.train()
    # Before anything is decoded, which may take minutes.
    check_matches(side)
    side = _ready(side, settings)
    read_test = partial(load_test, settings)
    if not settings.hold_out_validation:
        return Splits(side, None, read_test)
    choose = held_out_classes if source.zero_shot else held_out_images
    held_out = choose(side.labels, settings.validation_fraction)
    train = subset_of(side, (~held_out).nonzero().flatten(), f"{side.name} without validation")
    validation = subset_of(side, held_out.nonzero().flatten(), f"{settings.name}/validation")
    check_matches(train)
    return Splits(train, validation, read_test)


def load_source(settings: DataSettings) -> Source:
    """Both sides of a data set as they lie in its root; image files are not decoded yet.

    Raises:
        DataError: nothing usable is there; more errors come when a side is read.
    """
    reader = DATASETS[settings.name]
    if isinstance(settings.root, str) and not reader.bundled:
        return remote_source(settings.name, settings.stored_size, settings.root)
    source: Source = reader.read(Path(settings.root), settings.stored_size)
    return source


def load_test(settings: DataSettings) -> ImageSet:
    """The test side alone; the set need not have a training side.

    Raises:
        DataError: the side is missing, incomplete, of another image size, or cannot be decoded.
    """
    return _ready(load_source(settings).test(), settings)


def local_root(settings: DataSettings) -> Path:
    """The folder or table that a set is read from.

    Raises:
        DataError: the root is an address.
    """
    if isinstance(settings.root, str):
        raise DataError(f"data root {settings.root} is an address; give the folder that holds the images")
    return settings.root


def prepare_dataset(settings: DataSettings, *, verify: bool = False, address: str | None = None) -> dict[str, ImageSet]:
    """Decode both sides of a data set into their caches, so that training and evaluation find them.

    Args:
        settings: which set, where, and the stored size.
        verify: compare every cached image with its checksum, and make a cache again where they differ.
        address: where to push the caches, as `colotride.data.remote.push` takes it.

    Returns:
        The sides: "test", and "train" unless the images are only there to be evaluated.

    Raises:
        DataError: the root is an address, a side is unusable, or the address cannot be written.
    """
    root = local_root(settings)
    source = load_source(settings)
    sides = {"test": source.test()}
    try:
        sides["train"] = source.train()
    except DataError:
        # A user's images may have no training side; a public set without one is incomplete.
        if settings.name in ARCHIVES:
            raise
    ready = {}
    for side, images in sides.items():
        ready[side] = cached_images(images, root)
        if verify and isinstance(cached := ready[side], CachedImages) and (defect := verify_cache(cached.path)):
            cached.path.unlink()
            ready[side] = cached_images(images, root)
            notify(f"{cached.path} {defect}; it was made again")
    if address is not None:
        push(settings.name, settings.stored_size, ready, source.zero_shot, address)
    return ready


def _ready(images: ImageSet, settings: DataSettings) -> ImageSet:
    """A side from its cache, where its root is local; its images have the stored size."""
    ready = cached_images(images, settings.root) if isinstance(settings.root, Path) else images
    if len(ready):
        _check_size(ready, settings.stored_size)
    return ready


def held_out_classes(labels: Int[Tensor, "images"], fraction: float) -> Bool[Tensor, "images"]:
    """Which images belong to the last classes, `fraction` of all classes, at least two."""
    classes = labels.unique()
    count = max(2, round(fraction * len(classes)))
    return torch.isin(labels, classes[-count:])


def held_out_images(labels: Int[Tensor, "images"], fraction: float) -> Bool[Tensor, "images"]:
    """A fixed random choice of every class's images, `fraction` of each, at least two (a query and its match)."""
    order = torch.randperm(len(labels), generator=generator(0, "validation split"))
    by_class = order[labels[order].argsort(stable=True)]
    _, counts = labels.unique(return_counts=True)
    starts = counts.cumsum(0) - counts
    wanted = (counts * fraction).round().long().clamp_min(2)
    position = torch.arange(len(labels)) - starts.repeat_interleave(counts)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[by_class] = position < wanted.repeat_interleave(counts)
    return held_out


def _check_size(images: ImageSet, stored_size: int) -> None:
    size = images.pixels(torch.zeros(1, dtype=torch.int64)).shape[-1]
    if size != stored_size:
        raise DataError(f"images of {images.name} have {size} px, data.stored_size is {stored_size}; set it to {size}")
