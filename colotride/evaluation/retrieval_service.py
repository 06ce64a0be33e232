"""What an attacker without gradients sees: a retrieval service that answers queries, and counts them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colotride.evaluation import ranking
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.attacks.matches import match_margin
from colotride.evaluation.gallery import Gallery, checked

LIST_LENGTH = 10
"""Images that the service returns to `qair`."""


@dataclass(frozen=True)
class BlackBoxResult:
    """What an attack reached on each query of a batch."""

    images: Float[Tensor, "batch channels height width"]
    calls: Int[Tensor, "batch"]
    """Images shown to the model, until success or until the budget was spent."""
    success: Bool[Tensor, "batch"]
    attacked: Bool[Tensor, "batch"]
    """False where the first result was wrong before the attack: nothing was asked."""


class RetrievalService:
    """Answers perturbed queries, and counts them; a query is closed once its first result is of another class."""

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        attacked: AttackBatch,
        images: Tensor,
        *,
        tells: Literal["distances", "list"],
    ) -> None:
        """Open a service for a batch of queries.

        Args:
            embed: the model.
            attacked: the queries' places in the gallery.
            images: the queries without perturbation.
            tells: what an answer holds.
        """
        self._embed, self.batch, self._tells = embed, attacked, tells
        self.images = images.clone()
        """The best perturbed images so far."""
        self.losses = torch.full((len(images),), torch.inf, device=images.device, dtype=images.dtype)
        self.calls = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.success = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        first = ranking.first_result_is_match(attacked.gallery, attacked.clean, attacked.moving)
        self.attacked = first > 0
        self._lists = returned_list(attacked.gallery, attacked.clean, attacked.moving, LIST_LENGTH)

    @property
    def open(self) -> Int[Tensor, "rows"]:
        """Rows of the queries that have not succeeded."""
        return (self.attacked & ~self.success).nonzero()[:, 0]

    def ask(self, images: Float[Tensor, "rows channels height width"], rows: Int[Tensor, "rows"]) -> Tensor:
        """Show one image per query to the model; losses in the attacker's eyes, lower is better for the attacker."""
        return self._answer(images, rows)[0]

    def try_(self, images: Float[Tensor, "rows channels height width"], rows: Int[Tensor, "rows"]) -> None:
        """Show one image per query, and keep those that are no worse than the best so far, and those that succeed."""
        losses, lost = self._answer(images, rows)
        better = (losses <= self.losses[rows]) | lost
        self.images[rows[better]] = images[better]
        self.losses[rows[better]] = losses[better]
        self.success[rows] = lost

    def result(self) -> BlackBoxResult:
        """What was reached."""
        return BlackBoxResult(self.images, self.calls, self.success, self.attacked)

    def _answer(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gallery = self.batch.gallery
        part = AttackBatch(gallery, self.batch.moving[rows], self.batch.target[rows])
        embeddings = checked(self._embed(images), len(rows), images.device)
        self.calls[rows] += 1
        lost = ranking.first_result_is_match(gallery, embeddings, part.moving) == 0
        if self._tells == "distances":
            return match_margin(part)(embeddings).to(self.losses), lost
        now = returned_list(gallery, embeddings, part.moving, LIST_LENGTH)
        return list_relevance(self._lists[rows], now).to(self.losses), lost


def returned_list(
    gallery: Gallery, embeddings: Float[Tensor, "batch dim"], queries: Int[Tensor, "batch"], length: int
) -> Int[Tensor, "batch length"]:
    """The first results of each query, nearest first, itself left out."""
    squares = gallery.exact.squares(gallery.exact.place(embeddings))
    squares.scatter_(1, queries.to(squares.device)[:, None], torch.inf)
    found = squares.topk(min(length, len(gallery) - 1), largest=False, sorted=True).indices
    return found.to(gallery.labels.device)


def list_relevance(clean: Int[Tensor, "batch length"], now: Int[Tensor, "batch length"]) -> Float[Tensor, "batch"]:
    """How much of the clean list is left in the list that is returned now, in [0, 1], 1 for the same list.

    The relevance-based loss in the manner of QAIR (Li et al., CVPR 2021): an image that was early in the clean list and is
    early now counts most, by the discount 1 / log2(1 + place) of either list; only places are seen, no distance.
    """
    discount = 1 / torch.log2(2 + torch.arange(clean.shape[1], device=clean.device, dtype=torch.float64))
    same = (clean[:, :, None] == now[:, None, :]).double()
    return torch.einsum("i,bij,j->b", discount, same, discount) / discount.square().sum()
