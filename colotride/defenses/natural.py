"""Natural training (NT): triplets as they are."""

from typing import Literal

import torch

from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseSettings, Diagnostics, StepInfo, Triplets
from colotride.registry import register_defense


class NaturalSettings(DefenseSettings):
    """Natural training has no settings of its own."""

    name: Literal["natural"] = "natural"


@register_defense("natural")
class Natural(TripletDefense[NaturalSettings]):
    """Minimises L_T (Eq. 1) on clean triplets: the undefended baseline."""

    Settings = NaturalSettings

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """Nothing."""
        return "nothing"

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Train on the triplets as they are."""
        return Perturbation()
