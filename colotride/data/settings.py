"""Which images a run uses, and how they are cut, paired and held out."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from colotride.registry import DATASETS
from colotride.settings import Fraction, Settings

DatasetName = Annotated[str, AfterValidator(DATASETS.check)]
"""Name of a registered data set."""


def as_root(root: str | Path) -> str | Path:
    """Text as a path, unless it is an address such as s3://bucket/data, whose slashes a path would not keep."""
    return Path(root) if isinstance(root, str) and "://" not in root else root


def absolute_root(root: str | Path) -> str | Path:
    """The same root for processes with other working directories."""
    return root.absolute() if isinstance(root, Path) else root


class DataSettings(Settings):
    """A data set, its sizes, its pairs per batch and its validation split."""

    name: DatasetName
    """Which data set."""
    root: Annotated[str | Path, AfterValidator(as_root)] = Path("data")
    """Folder that holds the data sets; of `folder` and `manifest`, the folder or table itself. Or an address to which
    `colotride download --push` has copied a set: s3://..., gs://..., file://..."""
    stored_size: int = Field(default=256, ge=1)
    """Side in pixels to which image files are resized on reading."""
    image_size: int = Field(default=224, ge=1)
    """Side in pixels that the model sees: a random crop in training, the centre otherwise."""
    flip: bool = True
    """Mirror training images at random."""
    pairs_per_batch: int = Field(default=56, ge=2)
    """Anchor-positive pairs in a batch (SPC-2: two images of one class make a pair)."""
    pairs_per_epoch: int | None = Field(default=None, ge=1)
    """Pairs in an epoch; null for every training image once."""
    hold_out_validation: bool = False
    """Keep a part of the training side out of training, to validate on it."""
    validation_fraction: Fraction = Field(default=0.2, gt=0, lt=1)
    """Share that is held out: of the training classes (zero-shot sets) or of each class's images (closed sets)."""

    @model_validator(mode="after")
    def _fits(self) -> "DataSettings":
        if self.image_size > self.stored_size:
            raise ValueError(f"image_size {self.image_size} is larger than stored_size {self.stored_size}")
        return self
