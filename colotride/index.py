"""A searchable index of pictures: a faiss index of their embeddings, and their paths."""

import io
import json
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from colotride.data.files import SUFFIXES
from colotride.embedder import Embedder, Picture
from colotride.errors import DataError, ModelError
from colotride.io import read_file, write_atomically

FORMAT = "colotride index 1"

Kind = Literal["auto", "exact", "hnsw"]

EXACT_UP_TO = 100_000
"""Pictures up to which `auto` compares a query with every one of them."""

NEIGHBOURS, BUILD_WIDTH, SEARCH_WIDTH = 32, 80, 128
"""Edges of each picture in the graph of an HNSW index, and how many candidates are followed while it is built and
searched."""


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
        kind: Kind = "auto",
        batch_size: int = 64,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "Index":
        """Embed pictures and index them; those that cannot be decoded are skipped and listed in `skipped`.

        Args:
            net: what `colotride.load` returned.
            pictures: a folder, searched with its subfolders for image files, or paths of image files.
            kind: "exact" compares a query with every picture. "hnsw" follows a graph of neighbours (Malkov and
                Yashunin, TPAMI 2020), which is many times faster for a large collection and may miss some of the
                nearest; two builds by several threads may differ. "auto" is exact up to 100,000 pictures.
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
        return cls(net, index_of(torch.stack(embedded), kind), kept, skipped)

    @property
    def kind(self) -> Kind:
        """Of its searches: "exact" or "hnsw"."""
        return "hnsw" if isinstance(self._index, faiss.IndexHNSW) else "exact"

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
        distances, rows = nearest(self._index, embedding, min(k, len(self)))
        return [
            (self.paths[row], float(distance)) for row, distance in zip(rows[0], distances[0], strict=True) if row >= 0
        ]

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


def index_of(embeddings: Float[Tensor, "images dim"], kind: Kind = "auto") -> Any:
    """A faiss index of embeddings; see `Index.build` for its kinds."""
    if kind == "exact" or (kind == "auto" and len(embeddings) <= EXACT_UP_TO):
        index: Any = faiss.IndexFlatL2(embeddings.shape[1])
    else:
        index = faiss.IndexHNSWFlat(embeddings.shape[1], NEIGHBOURS)
        index.hnsw.efConstruction = BUILD_WIDTH
    index.add(embeddings.numpy())
    return index


def nearest(index: Any, queries: Float[Tensor, "queries dim"], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Euclidean distances and rows of the k nearest embeddings of each query; row -1 where a graph finds fewer."""
    graph = isinstance(index, faiss.IndexHNSW)
    # faiss makes this class when it is imported, which its type stubs do not know.
    width = faiss.SearchParametersHNSW(efSearch=max(k, SEARCH_WIDTH)) if graph else None  # type: ignore[attr-defined]
    squares, rows = index.search(queries.numpy(), k, params=width)
    return np.sqrt(np.maximum(squares, 0)), rows


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
