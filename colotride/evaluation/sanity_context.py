"""The queries on which checks are made, and what a check says."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from colotride.data.base import ImageSet
from colotride.evaluation import ranking
from colotride.evaluation.gallery import Gallery, read_views
from colotride.geometry import distances
from colotride.pgd import Objective, frozen, lengths, perturb
from colotride.pgd_settings import Budget

TOLERANCE = 0.05
"""How much of an attack's effect may be lost, or be gained by a weaker rival, before a check fails."""

Verdict = tuple[bool, dict[str, float], str]
"""Whether a check passed, its figures, and what it means when it fails."""


@dataclass(frozen=True)
class Check:
    """One verdict with its figures."""

    name: str
    passed: bool
    figures: dict[str, float]
    meaning: str
    """What it means when the check fails."""


@dataclass(frozen=True)
class SanityContext:
    """A few queries whose embedding an attack moves as far as it can (ES): the effect is the shift, in [0, 2]."""

    model: nn.Module
    gallery: Gallery
    queries: Tensor
    images: Float[Tensor, "queries channels height width"]
    budget: Budget

    @property
    def clean(self) -> Float[Tensor, "queries dim"]:
        """Embeddings of the queries without perturbation."""
        return self.gallery.embeddings[self.queries]

    def objective(self) -> Objective:
        """Minus the shift."""
        clean = self.clean
        return lambda moved: -distances(moved, clean).sum()

    def attacked(self, budget: Budget, random: torch.Generator, model: nn.Module | None = None) -> Tensor:
        """The images after the attack from a random start; through another model's gradients when one is given."""
        start = self.random_start(budget, random)
        if model is None:
            return perturb(self.model, self.images, self.objective(), budget, start)
        with frozen(model) as embed, torch.no_grad():
            clean = embed(self.images)
        return perturb(model, self.images, lambda moved: -distances(moved, clean).sum(), budget, start)

    def random_start(self, budget: Budget, random: torch.Generator) -> Tensor:
        """The images at most one step away: every value anywhere within it (linf), or one step in any direction (l2)."""
        size = min(budget.step_size, budget.epsilon)
        if budget.norm == "l2":
            noise = torch.randn(self.images.shape, generator=random)
            noise = noise / lengths(noise)
        else:
            noise = 2 * torch.rand(self.images.shape, generator=random) - 1
        return self.images + size * noise.to(self.images.device)

    def shift(self, images: Tensor) -> Float[Tensor, "queries"]:
        """How far each query's embedding has moved."""
        return distances(self.embed(images), self.clean)

    def recall(self, images: Tensor) -> float:
        """R@1 of the queries as they are now, in percent."""
        return float(ranking.first_result_is_match(self.gallery, self.embed(images), self.queries).mean())

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings by the frozen model."""
        with frozen(self.model) as embed, torch.no_grad():
            return embed(images)


def sanity_context(
    model: nn.Module, images: ImageSet, gallery: Gallery, queries: Tensor, image_size: int, budget: Budget
) -> SanityContext:
    """Read the queries."""
    device = gallery.embeddings.device
    view = read_views(images, queries, image_size, model, device)
    return SanityContext(model, gallery, queries.to(device), view, budget)
