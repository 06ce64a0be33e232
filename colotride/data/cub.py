"""CUB-200-2011: photographs of 200 kinds of birds."""

from functools import partial
from pathlib import Path

from colotride.data.base import ImageSet, Source, missing
from colotride.data.files import FileImages
from colotride.errors import DataError
from colotride.registry import register_dataset

REMEDY = "fetch it with colotride download cub, or unpack CUB_200_2011.tgz there"


@register_dataset("cub")
def cub(root: Path, stored_size: int) -> Source:
    """CUB in its own layout under ROOT/CUB_200_2011: the first half of the classes trains, the second half tests.

    Classes 1-100 are 5,864 images, classes 101-200 are 5,924.

    Raises:
        DataError: when a side is read: the folder or a listed image is missing, or a line of a list is malformed.
    """
    return Source(
        train=partial(_part, root, "train", stored_size), test=partial(_part, root, "test", stored_size), zero_shot=True
    )


def _part(root: Path, side: str, stored_size: int) -> ImageSet:
    folder = root / "CUB_200_2011"
    if not folder.is_dir():
        raise missing("cub", folder, REMEDY)
    names = _table(folder / "images.txt")
    classes = {
        image: int(label) for image, label in _table(folder / "image_class_labels.txt").items() if label.isdigit()
    }
    if names.keys() != classes.keys():
        raise DataError(
            f"cub in {folder} lists {len(names)} images and {len(classes)} classes of images; {REMEDY} again"
        )
    ordered = sorted(set(classes.values()))
    half = set(ordered[: len(ordered) // 2] if side == "train" else ordered[len(ordered) // 2 :])
    chosen = [image for image in names if classes[image] in half]
    paths = [folder / "images" / names[image] for image in chosen]
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise DataError(f"cub lists {absent}, which is not there; {REMEDY} again")
    return FileImages(f"cub/{side}", paths, [classes[image] for image in chosen], stored_size, _class_names(folder))


def _class_names(folder: Path) -> dict[int, str]:
    """Names of the birds; the list is not needed to train or to evaluate, so it may be missing."""
    path = folder / "classes.txt"
    if not path.is_file():
        return {}
    # A line is "2 002.Laysan_Albatross".
    return {int(label): name.partition(".")[2].replace("_", " ") for label, name in _table(path).items()}


def _table(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise missing("cub", path, REMEDY)
    rows: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = line.split()
        if len(fields) != 2:
            raise DataError(f"{path}, line {number} is {line!r}, not two fields; {REMEDY} again")
        rows[fields[0]] = fields[1]
    return rows
