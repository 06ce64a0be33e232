"""ACT, anti-collapse triplet (Zhou et al., 2021)."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.base import DefenseSettings, Diagnostics, Moment, Triplets
from colotride.defenses.training_step import Moving, Plan, TripletDefense


class ActSettings(DefenseSettings):
    """ACT has nothing to choose."""

    recommended: ClassVar[dict[str, Any]] = {
        "pgd.steps": 32,
        "pgd.ramp": "constant",
        "optimisation.miner": "random",
    }
    name: Literal["act"] = "act"


class Act(TripletDefense):
    """Pulls positives and negatives together, so that they are hard to tell apart; the anchors stay clean."""

    def moving(self, moment: Moment) -> Moving:
        """The positives and the negatives."""
        return "candidates"

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Minimise mean d(P~, N~)."""

        def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
            positive, negative = embeddings.chunk(2)
            return triplets.distances(positive, negative).mean()

        return Plan(objective)
