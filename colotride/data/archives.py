"""Archives of the public image sets: addresses, sizes and checksums."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DownloadableName = Literal["cub", "cars", "sop", "fashion-mnist"]


@dataclass(frozen=True)
class Archive:
    """A file that a data set is made from."""

    url: str
    md5: str
    size: int | None = None
    """Bytes, where known; used for servers that do not send a length."""
    into: str = "."
    """Folder below the data root into which a .tgz or .zip is unpacked; any other file is put there as it is."""

    @property
    def name(self) -> str:
        """The file's name, which is the same on a mirror."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class DatasetArchives:
    """A data set as its authors distribute it."""

    folder: str
    """Folder below the data root that the archives unpack to."""
    archives: tuple[Archive, ...]


CALTECH = "https://data.caltech.edu/records/65de6-vp158/files"
CARS = "http://ai.stanford.edu/~jkrause/car196"
CVGL = "http://ftp.cs.stanford.edu/cs/cvgl"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
RAW = "FashionMNIST/raw"

ARCHIVES: Mapping[DownloadableName, DatasetArchives] = {
    "cub": DatasetArchives(
        "CUB_200_2011",
        (Archive(f"{CALTECH}/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78", 1_150_585_339),),
    ),
    "cars": DatasetArchives(
        "CARS_196",
        (
            Archive(f"{CARS}/car_ims.tgz", "d5c8f0aa497503f355e17dc7886c3f14", into="CARS_196"),
            Archive(f"{CARS}/cars_annos.mat", "b407c6086d669747186bd1d764ff9dbc", into="CARS_196"),
        ),
    ),
    "sop": DatasetArchives(
        "Stanford_Online_Products",
        (Archive(f"{CVGL}/Stanford_Online_Products.zip", "7f73d41a2f44250d4779881525aea32e"),),
    ),
    "fashion-mnist": DatasetArchives(
        RAW,
        (
            Archive(f"{ZALANDO}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880, RAW),
            Archive(f"{ZALANDO}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515, RAW),
            Archive(f"{ZALANDO}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102, RAW),
            Archive(f"{ZALANDO}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148, RAW),
        ),
    ),
}
"""Checksums as torchvision (Fashion-MNIST) and KevinMusgrave/powerful-benchmarker (the others) publish them."""
