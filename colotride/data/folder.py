"""Your own images: a folder with one folder per class."""

from functools import partial
from pathlib import Path

from colotride.data.base import CACHE_FOLDER, ImageSet, Source, missing
from colotride.data.files import SUFFIXES, FileImages
from colotride.errors import DataError
from colotride.registry import register_dataset

LAYOUT = "put images into ROOT/train/CLASS/ and ROOT/test/CLASS/, or into ROOT/CLASS/ to evaluate only"


@register_dataset("folder")
def folder(root: Path, stored_size: int) -> Source:
    """ROOT/train/CLASS/image and ROOT/test/CLASS/image; without `test`, ROOT/CLASS/image is the test side.

    Classes are numbered from 0 in the order of the names of all class folders. Where no class is on both sides the
    set is zero-shot: whole classes are held out to validate. Files without the suffix of an image are ignored.

    Raises:
        DataError: no such folder; when a side is read: it has no images, or something with the suffix of an image is not a file.
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
    return (
        {path.name for path in side.iterdir() if path.is_dir() and path.name != CACHE_FOLDER}
        if side.is_dir()
        else set()
    )


def _part(name: str, side: Path, numbers: dict[str, int], stored_size: int) -> ImageSet:
    if not side.is_dir():
        raise missing(name, side, LAYOUT)
    found = (path for path in side.glob("*/*") if path.parent.name != CACHE_FOLDER)
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{name} at {side.absolute()} has no images; {LAYOUT}")
    odd = next((path for path in paths if not path.is_file()), None)
    if odd is not None:
        raise DataError(f"{name} has {odd}, which is not a regular file; remove it")
    names = {number: name for name, number in numbers.items()}
    return FileImages(name, paths, [numbers[path.parent.name] for path in paths], stored_size, names)
