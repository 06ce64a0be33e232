"""Natural training (NT): triplets as they are."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from colotride.defenses.base import (
    Batch,
    CollapsenessSettings,
    Diagnostics,
    Moment,
    clean_diagnostics,
    embed_triplets,
    mine_triplets,
)
from colotride.geometry import distances
from colotride.losses import triplet_loss
from colotride.mining import MinerName
from colotride.settings import Settings


class NaturalSettings(Settings):
    """Natural training has nothing to choose."""

    name: Literal["natural"] = "natural"


class Natural:
    """Minimises L_T (Eq. 1) on clean triplets: the undefended baseline."""

    def __init__(self, margin: float, miner: MinerName, collapseness: CollapsenessSettings) -> None:
        self.margin, self.miner, self.collapseness = margin, miner, collapseness

    def __call__(
        self, model: nn.Module, batch: Batch, moment: Moment, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Diagnostics]:
        """See `Defense.__call__`."""
        triplets = mine_triplets(model, batch, self.miner, self.margin, generator)
        anchor, positive, negative = embed_triplets(model, triplets.anchor, triplets.positive, triplets.negative)
        loss = triplet_loss(distances(anchor, positive), distances(anchor, negative), self.margin)
        return loss, clean_diagnostics(triplets, self.collapseness)

    def state_dict(self) -> dict[str, Any]:
        """Nothing is carried from batch to batch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
