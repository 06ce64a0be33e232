"""EST, embedding-shifted triplets (Zhou et al., 2020)."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from colotride.defenses.base import DefenseSettings, Diagnostics, Moment, Triplets
from colotride.defenses.hardness import random_start
from colotride.defenses.training_step import Moving, Plan, TripletDefense


class EstSettings(DefenseSettings):
    """EST has nothing to choose."""

    recommended: ClassVar[dict[str, Any]] = {"pgd.steps": 32, "pgd.ramp": "constant"}
    name: Literal["est"] = "est"


class Est(TripletDefense):
    """Moves every image of the triplets as far from its own clean embedding as it goes."""

    def moving(self, moment: Moment) -> Moving:
        """All parts."""
        return "all"

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Maximise the sum of d(f(x~), f(x)), from a random start: at the clean image its gradient is 0."""
        clean = torch.cat([triplets.anchor_embedding, triplets.positive_embedding, triplets.negative_embedding])

        def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
            shift: Tensor = triplets.distances(embeddings, clean)
            return -shift.sum()

        return Plan(objective, start=random_start(triplets, self.recipe.pgd.step_size, generator))
