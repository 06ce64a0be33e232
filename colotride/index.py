"""A searchable index of pictures: an exact faiss index of their embeddings, and their paths."""

import io
import json
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from colotride.data.files import SUFFIXES
from colotride.embedder import Embedder, Picture
from colotride.errors import DataError, ModelError
from colotride.io import read_file, write_atomically

FORMAT = "colotride index 1"


class Index:
    """A collection of pictures that is searched by picture; made by `build` or `load`.

    Attributes:
        paths: of the pictures, in the order of the index.
        skipped: pictures that could not be decoded when the index was built, each with the reason.
    """

    def __init__(self, net: Embedder, index: Any, paths: Sequence[str], skipped: Sequence[tuple[str, str]]) -> None:
        self._net, self._index = net, index
        self.paths, self.skipped = list(paths), list(skipped)

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def build(
        cls,
        net: Embedder,
        pictures: Picture | Sequence[Picture],
        *,
        batch_size: int = 64,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "Index":
        """Embed pictures and index them; those that cannot be decoded are skipped and listed in `skipped`.

        Args:
            net: what `colotride.load` returned.
            pictures: a folder, searched with its subfolders for image files, or paths of image files.
            batch_size: images per pass through the network.
            on_progress: called with the number of pictures that are done and their total.

        Raises:
            DataError: no such folder, or none of the pictures can be decoded.
        """
        paths = pictures_in(pictures)
        embedded: list[Tensor] = []
        kept: list[str] = []
        skipped: list[tuple[str, str]] = []
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            for path, embedding in embed_decodable(net, part, skipped):
                kept.append(path)
                embedded.append(embedding)
            if on_progress:
                on_progress(min(start + batch_size, len(paths)), len(paths))
        if not embedded:
            reason = f"; the first: {skipped[0][1]}" if skipped else ""
            raise DataError(f"none of the {len(paths)} pictures can be indexed{reason}")
        embeddings = torch.stack(embedded)
        index = faiss.IndexFlatL2(embeddings.shape[1])
        index.add(embeddings.numpy())
        return cls(net, index, kept, skipped)

    def query(self, picture: Picture | Tensor, k: int = 10) -> list[tuple[str, float]]:
        """The k nearest pictures, the nearest first.

        Args:
            picture: path of an image file, or one image as a tensor [channels, height, width] or [1, channels, height,
                width]; see `Embedder.embed`.
            k: how many; a smaller index returns fewer.

        Returns:
            Path and Euclidean distance of the embeddings, in [0, 2].

        Raises:
            DataError: the picture cannot be decoded, or k is below 1.
        """
        if k < 1:
            raise DataError(f"k = {k} asks for nothing; give 1 or more")
        if isinstance(picture, Tensor):
            picture = picture if picture.ndim == 4 else picture[None]
            if len(picture) != 1:
                raise DataError(f"a query is one image, not {len(picture)}; ask for each of them")
        embedding = self._net.embed(picture)
        squares, rows = self._index.search(embedding.numpy(), min(k, len(self)))
        distances = np.sqrt(np.maximum(squares[0], 0))
        return [(self.paths[row], float(distance)) for row, distance in zip(rows[0], distances, strict=True)]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index into one file, atomically, with the digest of its model."""
        about = {"format": FORMAT, "model": self._net.digest(), "paths": self.paths, "skipped": self.skipped}
        buffer = io.BytesIO()
        np.savez(buffer, index=faiss.serialize_index(self._index), about=np.array(json.dumps(about)))
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | PathLike[str], net: Embedder) -> "Index":
        """Read an index that `save` wrote.

        Args:
            path: of the file.
            net: the model with which it was built.

        Raises:
            DataError: the file is not an index, or damaged.
            ModelError: it was built with another model.
        """
        try:
            with np.load(io.BytesIO(read_file(Path(path), most=None)), allow_pickle=False) as content:
                about = json.loads(str(content["about"]))
                index = faiss.deserialize_index(content["index"])
            digest, paths, skipped = about["model"], about["paths"], about["skipped"]
        except Exception as error:
            # zipfile, numpy, json and faiss each have their own errors for a damaged file.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"index {path} cannot be read ({reason}); build it again with Index.build") from None
        if digest != net.digest():
            raise ModelError(
                f"index {path} was built with another model or another preprocessing; load that model, or build the "
                "index again with Index.build"
            )
        return cls(net, index, paths, [(picture, reason) for picture, reason in skipped])


def pictures_in(pictures: Picture | Sequence[Picture]) -> list[str]:
    """Paths of the pictures: those of a folder and its subfolders in alphabetical order, or the given ones.

    Raises:
        DataError: no such folder, or no picture in it.
    """
    if not isinstance(pictures, str | PathLike):
        return [str(path) for path in pictures]
    folder = Path(pictures)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of pictures or a list of their paths")
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def embed_decodable(net: Embedder, paths: Sequence[str], skipped: list[tuple[str, str]]) -> list[tuple[str, Tensor]]:
    """Embed pictures together; where one cannot be decoded, each by itself.

    Args:
        net: what `colotride.load` returned.
        paths: of the pictures.
        skipped: takes path and reason of each picture that cannot be decoded.

    Returns:
        Path and embedding of the others.
    """
    try:
        return list(zip(paths, net.embed(paths), strict=True))
    except DataError:
        pass
    done = []
    for path in paths:
        try:
            done.append((path, net.embed(path)[0]))
        except DataError as error:
            skipped.append((path, str(error)))
    return done
