"""ACT, anti-collapse triplet (Zhou et al., 2021)."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseSettings, Diagnostics, StepInfo, Triplets
from colotride.registry import register_defense


class ActSettings(DefenseSettings):
    """ACT has no settings of its own."""

    recommended: ClassVar[dict[str, Any]] = {
        "pgd.steps": 32,
        "pgd.ramp": "constant",
        "training.miner": "random",
    }
    name: Literal["act"] = "act"


@register_defense("act")
class Act(TripletDefense[ActSettings]):
    """Pulls positives and negatives together, so that they are hard to tell apart; the anchors stay clean."""

    Settings = ActSettings

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """The positives and the negatives."""
        return "candidates"

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Minimise mean d(P~, N~)."""

        def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
            positive, negative = embeddings.chunk(2)
            return triplets.distances(positive, negative).mean()

        return Perturbation(objective)
