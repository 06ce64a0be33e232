"""Natural training (NT): triplets as they are."""

from typing import Literal

import torch

from colotride.defenses.base import DefenseSettings, Diagnostics, Moment, Triplets
from colotride.defenses.training_step import Moving, Plan, TripletDefense


class NaturalSettings(DefenseSettings):
    """Natural training has nothing to choose."""

    name: Literal["natural"] = "natural"


class Natural(TripletDefense):
    """Minimises L_T (Eq. 1) on clean triplets: the undefended baseline."""

    def moving(self, moment: Moment) -> Moving:
        """Nothing."""
        return "nothing"

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Train on the triplets as they are."""
        return Plan()
