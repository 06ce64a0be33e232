"""The gallery: every image's clean embedding and class, computed once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from colotride.data.augmentation import evaluation_view
from colotride.data.base import ImageSet, check_matches
from colotride.errors import ModelError
from colotride.pgd import frozen

UNIT_LENGTH_TOLERANCE = 1e-3

BLOCK_BYTES = 512 * 2**20
"""Memory for one block of distances and what is derived from them."""

BYTES_PER_PAIR = 28
"""Distances, the outcome of comparisons and what counts either; with two classes also the matches and their order."""

TIE_TOLERANCE = 64 * torch.finfo(torch.float64).eps
"""Squared distances that differ by less, in units of the squared lengths that they are made of, are equal: rounding
alone can tell them apart."""


ROWS_AT_ONCE = 1 << 16
"""Embeddings that are squared together."""


@dataclass(frozen=True)
class ClassMembers:
    """Which images belong to each class, so that the matches of a query are found without a look at all others."""

    place: Int[Tensor, "images"]
    """The class of every image, numbered from 0."""
    order: Int[Tensor, "images"]
    """All images, class by class."""
    starts: Int[Tensor, "classes"]
    """Where each class begins in `order`."""
    counts: Int[Tensor, "classes"]

    @classmethod
    def of(cls, labels: Int[Tensor, "images"]) -> "ClassMembers":
        """The members of all classes."""
        _, place, counts = labels.unique(return_inverse=True, return_counts=True)
        return cls(place, place.argsort(stable=True), counts.cumsum(0) - counts, counts)

    def __call__(
        self, queries: Int[Tensor, "queries"]
    ) -> tuple[Int[Tensor, "queries widest"], Bool[Tensor, "queries widest"]]:
        """The images of each query's class, and which of them are matches: the query itself is among them, and is none.

        Rows of smaller classes are filled up with the query.
        """
        own = self.place[queries]
        counts = self.counts[own][:, None]
        step = torch.arange(int(counts.max()), device=queries.device)
        members = self.order[(self.starts[own][:, None] + step).clamp(max=len(self.order) - 1)]
        members = torch.where(step < counts, members, queries[:, None])
        return members, members != queries[:, None]


@dataclass(frozen=True)
class ExactDistances:
    """Distances from any embedding to the whole gallery, exact enough to compare even where all embeddings nearly agree.

    In float32, sqrt(2 - 2 a.b) loses half its digits: below a distance of 0.003 its ranks are those of rounding errors.
    Here everything is double precision, and relative to the gallery's centre: d^2 = |a - m|^2 + |b - m|^2 -
    2 (a - m).(b - m). The rounding error is then a share of the gallery's own extent, however small that is. Both sides
    of every comparison come from this one formula.
    """

    centre: Float64[Tensor, "dim"]
    points: Float64[Tensor, "images dim"]
    """Embeddings minus the centre."""
    lengths: Float64[Tensor, "images"]
    """Squared lengths of the points."""
    labels: Int[Tensor, "images"]
    """On the device of the points."""

    @cached_property
    def members(self) -> ClassMembers:
        """The images of every class."""
        return ClassMembers.of(self.labels)

    def place(self, embeddings: Float[Tensor, "rows dim"]) -> Float64[Tensor, "rows dim"]:
        """Embeddings in these coordinates."""
        return embeddings.to(self.centre.device).double() - self.centre

    def squares(self, points: Float64[Tensor, "rows dim"]) -> Float64[Tensor, "rows images"]:
        """Squared distances from placed embeddings to the gallery."""
        lengths = points.square().sum(dim=1, keepdim=True)
        return torch.addmm(lengths + self.lengths, points, self.points.T, alpha=-2)

    def squares_between(
        self, points: Float64[Tensor, "rows dim"], others: Float64[Tensor, "rows dim"]
    ) -> Float64[Tensor, "rows 1"]:
        """Squared distances of matching rows, by the same formula."""
        lengths = points.square().sum(dim=1) + others.square().sum(dim=1)
        return (lengths - 2 * (points * others).sum(dim=1))[:, None]

    def tolerance(self, points: Float64[Tensor, "rows dim"]) -> Float64[Tensor, "rows 1"]:
        """How much squared distances of each row must differ to be different."""
        return TIE_TOLERANCE * (points.square().sum(dim=1, keepdim=True) + self.lengths.max())


@dataclass(frozen=True)
class Gallery:
    """Clean embeddings and classes of all images; each image is also a query that leaves itself out."""

    embeddings: Float[Tensor, "images dim"]
    labels: Int[Tensor, "images"]
    """On the device of the embeddings."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def centre(self) -> Float[Tensor, "dim"]:
        """Mean of the embeddings: what the attacks' distances are taken relative to, so that they keep their digits."""
        return self.exact.centre.to(self.embeddings)

    @cached_property
    def placed(self) -> tuple[Float[Tensor, "images dim"], Float[Tensor, "images"]]:
        """The embeddings minus their centre, and their squared lengths: what every step of an attack compares with."""
        points = self.embeddings - self.centre
        return points, torch.cat([part.square().sum(dim=1) for part in points.split(ROWS_AT_ONCE)])

    @cached_property
    def exact(self) -> ExactDistances:
        """What every comparison of distances goes by; on the CPU where the device has no double precision."""
        device = torch.device("cpu") if self.embeddings.device.type == "mps" else self.embeddings.device
        # In place and in parts: copies of a million embeddings take gigabytes.
        points = self.embeddings.to(device, torch.float64, copy=True)
        centre = points.mean(dim=0)
        points -= centre
        lengths = torch.cat([part.square().sum(dim=1) for part in points.split(ROWS_AT_ONCE)])
        return ExactDistances(centre, points, lengths, self.labels.to(device))


def in_batches(indices: Int[Tensor, "queries"], batch_size: int) -> Iterator[Int[Tensor, "batch"]]:
    """Cut a list of image indices into batches."""
    yield from indices.split(batch_size)


def query_blocks(indices: Int[Tensor, "queries"], gallery_size: int) -> Iterator[Int[Tensor, "block"]]:
    """Cut queries so that the distances of one block to the whole gallery fit into `BLOCK_BYTES`."""
    yield from indices.split(max(1, BLOCK_BYTES // (BYTES_PER_PAIR * gallery_size)))


def pixel_dtype(model: nn.Module) -> torch.dtype:
    """The dtype in which a model is evaluated: float64 where its weights are, else float32."""
    tensors = (*model.parameters(), *model.buffers())
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def read_views(
    images: ImageSet, indices: Int[Tensor, "batch"], image_size: int, model: nn.Module, device: torch.device
) -> Float[Tensor, "batch channels size size"]:
    """What a model sees of some images: their central crops, in the dtype of its weights."""
    return evaluation_view(images.pixels(indices).to(device), image_size).to(pixel_dtype(model))


def embed_gallery(
    model: nn.Module,
    images: ImageSet,
    *,
    image_size: int,
    batch_size: int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Gallery:
    """Embed every image once, with the model in inference mode.

    Args:
        model: maps pixels in [0, 1] to unit vectors.
        images: the gallery.
        image_size: side of the central crop.
        batch_size: images per pass.
        device: where the model is.
        progress: called with the share that is done.

    Raises:
        ModelError: embeddings are not finite, not unit vectors, or not one row per image.
        DataError: a class has a single image: it has no match to be found.
    """
    check_matches(images)
    embedded: list[Tensor] = []
    done = 0
    with frozen(model) as embed, torch.no_grad():
        for indices in in_batches(torch.arange(len(images)), batch_size):
            view = read_views(images, indices, image_size, model, device)
            embedded.append(checked(embed(view), len(indices), device))
            done += len(indices)
            if progress:
                progress(done / len(images))
    return Gallery(torch.cat(embedded), images.labels.to(device))


def checked(embeddings: object, expected: int, device: torch.device) -> Float[Tensor, "images dim"]:
    """Pass embeddings on, as float32 or float64, or say what is wrong with them.

    Raises:
        ModelError: no tensor of floating-point numbers, another device, not one row per image, NaN or infinite values, lengths other than 1.
    """
    if not isinstance(embeddings, Tensor):
        raise ModelError(f"the model returned {type(embeddings).__name__}; it must return one tensor of embeddings")
    if not embeddings.is_floating_point():
        raise ModelError(
            f"the model returned embeddings of type {embeddings.dtype}; it must return floating-point numbers"
        )
    if embeddings.device.type != device.type:
        raise ModelError(
            f"the model returned embeddings on {embeddings.device} for images on {device}; "
            "it must keep its computation where its input is"
        )
    if embeddings.ndim != 2 or len(embeddings) != expected:
        raise ModelError(
            f"the model returned shape {tuple(embeddings.shape)} for {expected} images; "
            "it must return one embedding per image, [images, dimensions]"
        )
    if not bool(torch.isfinite(embeddings).all()):
        raise ModelError(
            "the model returned NaN or infinite embeddings; train it again or check its input range [0, 1]"
        )
    worst = float((embeddings.norm(dim=1) - 1).abs().max())
    if worst > UNIT_LENGTH_TOLERANCE:
        raise ModelError(
            f"the model returned embeddings whose length differs from 1 by {worst:.3g}; "
            "end it with torch.nn.functional.normalize"
        )
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()
