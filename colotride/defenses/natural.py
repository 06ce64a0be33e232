"""Natural training (NT): triplets as they are."""

from typing import Literal

import torch

from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseSettings, Diagnostics, StepInfo, Triplets


class NaturalSettings(DefenseSettings):
    """Natural training has nothing to choose."""

    name: Literal["natural"] = "natural"


class Natural(TripletDefense):
    """Minimises L_T (Eq. 1) on clean triplets: the undefended baseline."""

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """Nothing."""
        return "nothing"

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Train on the triplets as they are."""
        return Perturbation()
