"""Cars-196: photographs of 196 models of cars."""

from functools import partial
from pathlib import Path

import numpy as np

from colotride.data.base import ImageSet, Source, missing
from colotride.data.files import FileImages
from colotride.errors import DataError
from colotride.registry import register_dataset

REMEDY = "fetch it with colotride download cars, or put car_ims/ and cars_annos.mat of Cars-196 there"


@register_dataset("cars")
def cars(root: Path, stored_size: int) -> Source:
    """Cars-196 under ROOT/CARS_196: the first half of the classes trains, the second half tests.

    Classes 1-98 are 8,054 images, classes 99-196 are 8,131.

    Raises:
        DataError: when a side is read: a file is missing, or the annotations are not those of Cars-196.
    """
    return Source(
        train=partial(_part, root, "train", stored_size), test=partial(_part, root, "test", stored_size), zero_shot=True
    )


def _part(root: Path, side: str, stored_size: int) -> ImageSet:
    folder = root / "CARS_196"
    annotations = folder / "cars_annos.mat"
    if not annotations.is_file():
        raise missing("cars", annotations, REMEDY)
    # Imported here, because it takes time that other data sets need not spend.
    from scipy.io import loadmat

    try:
        content = loadmat(annotations, squeeze_me=True)
        table = content["annotations"]
        names = [str(name) for name in np.atleast_1d(table["relative_im_path"])]
        classes = [int(label) for label in np.atleast_1d(table["class"])]
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise DataError(f"{annotations} is not the annotation file of Cars-196 ({error}); {REMEDY} again") from None
    ordered = sorted(set(classes))
    half = set(ordered[: len(ordered) // 2] if side == "train" else ordered[len(ordered) // 2 :])
    chosen = [(folder / name, label) for name, label in zip(names, classes, strict=True) if label in half]
    absent = next((path for path, _ in chosen if not path.is_file()), None)
    if absent is not None:
        raise DataError(f"cars lists {absent}, which is not there; {REMEDY} again")
    class_names = {number: str(name) for number, name in enumerate(np.atleast_1d(content.get("class_names", [])), 1)}
    paths, labels = [path for path, _ in chosen], [label for _, label in chosen]
    return FileImages(f"cars/{side}", paths, labels, stored_size, class_names)
