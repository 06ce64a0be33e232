"""Stanford Online Products: photographs of 22,634 products."""

from functools import partial
from pathlib import Path

from colotride.data.base import ImageSet, Source, missing
from colotride.data.files import FileImages
from colotride.errors import DataError
from colotride.registry import register_dataset

REMEDY = "fetch it with colotride download sop, or unpack Stanford_Online_Products.zip there"


@register_dataset("sop")
def sop(root: Path, stored_size: int) -> Source:
    """SOP in its own layout under ROOT/Stanford_Online_Products, split by Ebay_train.txt and Ebay_test.txt.

    59,551 images of 11,318 classes train, 60,502 of 11,316 others test.

    Raises:
        DataError: when a side is read: a list or a listed image is missing, or a line is malformed.
    """
    return Source(
        train=partial(_part, root, "train", stored_size), test=partial(_part, root, "test", stored_size), zero_shot=True
    )


def _part(root: Path, side: str, stored_size: int) -> ImageSet:
    folder = root / "Stanford_Online_Products"
    listing = folder / f"Ebay_{side}.txt"
    if not listing.is_file():
        raise missing("sop", listing, REMEDY)
    paths, labels = [], []
    for number, line in enumerate(listing.read_text().splitlines()[1:], 2):
        fields = line.split()
        if len(fields) != 4 or not fields[1].isdigit():
            raise DataError(
                f"{listing}, line {number} is {line!r}, not 'image_id class_id super_class_id path'; {REMEDY} again"
            )
        paths.append(folder / fields[3])
        labels.append(int(fields[1]))
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise DataError(f"sop lists {absent}, which is not there; {REMEDY} again")
    return FileImages(f"sop/{side}", paths, labels, stored_size)
