"""Your own images: a folder with one folder per class."""

from functools import partial
from pathlib import Path

from colotride.data.base import ImageSet
from colotride.data.files import FileImages
from colotride.data.source import STORES, Source, missing
from colotride.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})

LAYOUT = "put images into ROOT/train/CLASS/ and ROOT/test/CLASS/, or into ROOT/CLASS/ to evaluate only"


def folder(root: Path, stored_size: int) -> Source:
    """ROOT/train/CLASS/image and ROOT/test/CLASS/image; without `test`, ROOT/CLASS/image is the test side.

    Classes are numbered from 0 in the order of the names of all class folders. Where no class is on both sides the
    set is zero-shot: whole classes are held out to validate. Files that are no images by their suffix are passed over.

    Raises:
        DataError: no such folder; when a side is read: it has no images.
    """
    if not root.is_dir():
        raise missing("folder", root, LAYOUT)
    test = root / "test" if (root / "test").is_dir() else root
    classes = {side: _classes(path) for side, path in (("train", root / "train"), ("test", test))}
    numbers = {name: number for number, name in enumerate(sorted(classes["train"] | classes["test"]))}
    return Source(
        train=partial(_part, "folder/train", root / "train", numbers, stored_size),
        test=partial(_part, "folder/test", test, numbers, stored_size),
        zero_shot=not classes["train"] & classes["test"],
    )


def _classes(side: Path) -> set[str]:
    return {path.name for path in side.iterdir() if path.is_dir() and path.name != STORES} if side.is_dir() else set()


def _part(name: str, side: Path, numbers: dict[str, int], stored_size: int) -> ImageSet:
    if not side.is_dir():
        raise missing(name, side, LAYOUT)
    found = (path for path in side.glob("*/*") if path.parent.name != STORES)
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{name} at {side.absolute()} holds no images; {LAYOUT}")
    names = {number: name for name, number in numbers.items()}
    return FileImages(name, paths, [numbers[path.parent.name] for path in paths], stored_size, names)
