"""EST, embedding-shifted triplets (Zhou et al., 2020)."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.random_start import random_start
from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseSettings, Diagnostics, StepInfo, Triplets
from colotride.registry import register_defense


class EstSettings(DefenseSettings):
    """EST has no settings of its own."""

    recommended: ClassVar[dict[str, Any]] = {"pgd.steps": 32, "pgd.ramp": "constant"}
    name: Literal["est"] = "est"


@register_defense("est")
class Est(TripletDefense[EstSettings]):
    """Moves every image of the triplets as far from its own clean embedding as the budget allows."""

    Settings = EstSettings

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """All parts."""
        return "all"

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Maximise the sum of d(f(x~), f(x)), from a random start: at the clean image its gradient is 0."""
        clean = torch.cat([triplets.anchor_embedding, triplets.positive_embedding, triplets.negative_embedding])
        images = torch.cat(triplets.images)
        pgd = self.context.pgd

        def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
            shift: Tensor = triplets.distances(embeddings, clean)
            return -shift.sum()

        start = random_start(images, pgd.step_size, pgd.norm, triplets.shard, generator)
        return Perturbation(objective, start=start)
