"""A whole data set made ready: both sides decoded into their stores, checked, and brought to an address."""

from pathlib import Path

from colotride.data.base import ImageSet
from colotride.data.remote import push
from colotride.data.settings import DataSettings
from colotride.data.splits import load_source
from colotride.data.store import StoredImages, stored, verify_store
from colotride.data.telling import say
from colotride.errors import DataError


def local_root(settings: DataSettings) -> Path:
    """The folder or table that a set is read from.

    Raises:
        DataError: the root is an address.
    """
    if isinstance(settings.root, str):
        raise DataError(f"data root {settings.root} is an address; give the folder that holds the images")
    return settings.root


def prepare_set(settings: DataSettings, *, verify: bool = False, address: str | None = None) -> dict[str, ImageSet]:
    """Make the stores of both sides of a set, so that training and evaluation find them.

    Args:
        settings: which set, where, and the stored size.
        verify: read each store whole, compare it with its checksum, and make it again when they differ.
        address: where to push the stores, as `colotride.data.remote.push` takes it.

    Returns:
        The sides: "test", and "train" unless the images are there to be evaluated only.

    Raises:
        DataError: the root is an address, a side is unusable, or the address cannot be written.
    """
    root = local_root(settings)
    source = load_source(settings)
    sides = {"test": source.test()}
    try:
        sides["train"] = source.train()
    except DataError:
        # One's own images may have no training side; a public set without one is incomplete.
        if settings.name not in ("folder", "manifest"):
            raise
    made = {}
    for side, files in sides.items():
        made[side] = stored(files, root)
        if verify and isinstance(images := made[side], StoredImages) and (defect := verify_store(images.path)):
            images.path.unlink()
            made[side] = stored(files, root)
            say(f"{images.path} {defect}; it was made again")
    if address is not None:
        push(settings.name, settings.stored_size, made, source.zero_shot, address)
    return made
