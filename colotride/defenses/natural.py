"""Natural training (NT): triplets as they are."""

from typing import Literal

import torch

from colotride.defenses.base import DefenseSettings, Diagnostics, Moment, Triplets
from colotride.defenses.training_step import Plan, TripletDefense


class NaturalSettings(DefenseSettings):
    """Natural training has nothing to choose."""

    name: Literal["natural"] = "natural"


class Natural(TripletDefense):
    """Minimises L_T (Eq. 1) on clean triplets: the undefended baseline."""

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Move nothing."""
        return Plan("nothing")
