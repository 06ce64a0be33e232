"""COLO-TRIDE: collapse-oriented adversarial training with triplet decoupling, and its parts COLO-CAP and COLO-ANP."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from colotride.defenses.anchor import HardnessTerm, anchor_objective
from colotride.defenses.base import (
    Batch,
    CollapsenessSettings,
    Diagnostics,
    Moment,
    Triplets,
    clean_diagnostics,
    embed_triplets,
    mine_triplets,
)
from colotride.defenses.candidate import candidate_objective
from colotride.defenses.colo import assist_enabled, direction
from colotride.geometry import distances, relative_shift
from colotride.losses import top_ranked_triplet_loss, triplet_loss
from colotride.mining import MinerName, shrinking_margin
from colotride.pgd import Budget, PGDSettings, perturb
from colotride.settings import Fraction, Settings

Phase = Literal["candidates", "anchor"]


class ColoTrideSettings(Settings):
    """What COLO-TRIDE leaves open."""

    name: Literal["colo-tride"] = "colo-tride"
    phases: Literal["alternate", "candidates", "anchor"] = "alternate"
    """CAP and ANP by turns (COLO-TRIDE), CAP alone (COLO-CAP) or ANP alone (COLO-ANP)."""
    top_ranked_coefficient: float = Field(default=0.5, ge=0)
    """eta of the top-ranked triplet in ANP batches (Eq. 13)."""
    top_ranked_margin: float = Field(default=0.04, ge=0, le=2)
    """margin_top of the top-ranked triplet (Eq. 13)."""
    assist_disabled_fraction: Fraction = Field(default=1 / 3, ge=0, le=1)
    """Share of the epochs, from the first on, in which every batch is attacked (Appendix C)."""
    anchor_hardness_term: HardnessTerm = "raise"
    """Sign of the first term of Eq. 11: as the paper says, as in the released code, or without it."""


class ColoTride:
    """Perturbs candidates (CAP) or anchors (ANP) by turns, in the direction that C of the clean batch decides.

    Minimises L_T on the perturbed triplets, plus the top-ranked triplet in ANP batches (Eq. 9, 13).
    """

    def __init__(
        self,
        settings: ColoTrideSettings,
        pgd: PGDSettings,
        margin: float,
        miner: MinerName,
        collapseness: CollapsenessSettings,
    ) -> None:
        self.settings, self.pgd, self.collapseness = settings, pgd, collapseness
        self.margin, self.miner = margin, miner

    def phase(self, step: int) -> Phase:
        """Which part of the triplets moves in a batch: CAP in even steps, ANP in odd ones, unless one runs alone."""
        if self.settings.phases != "alternate":
            return self.settings.phases
        return "candidates" if step % 2 == 0 else "anchor"

    def __call__(
        self, model: nn.Module, batch: Batch, moment: Moment, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Diagnostics]:
        """See `Defense.__call__`."""
        band = shrinking_margin(self.margin, moment.epoch, moment.epochs)
        triplets = mine_triplets(model, batch, self.miner, band, generator)
        diagnostics = clean_diagnostics(triplets, self.collapseness)
        assist = assist_enabled(moment, self.settings.assist_disabled_fraction)
        sigma = direction(diagnostics["collapseness"], assist=assist)
        diagnostics["assist"] = (sigma < 0).to(sigma.dtype)
        budget = self.pgd.budget(moment.epoch, moment.epochs)
        step = self._candidates if self.phase(moment.step) == "candidates" else self._anchor
        loss, shift = step(model, triplets, sigma, budget)
        return loss, diagnostics | shift

    def _candidates(
        self, model: nn.Module, triplets: Triplets, sigma: Float[Tensor, ""], budget: Budget
    ) -> tuple[Float[Tensor, ""], Diagnostics]:
        objective = candidate_objective(triplets, sigma, self.collapseness)
        moved = perturb(model, torch.cat([triplets.positive, triplets.negative]), objective, budget)
        anchor, positive, negative = embed_triplets(model, triplets.anchor, *moved.chunk(2))
        loss = triplet_loss(distances(anchor, positive), distances(anchor, negative), self.margin)
        clean = torch.cat([triplets.positive_embedding, triplets.negative_embedding])
        moved_embedding = torch.cat([positive, negative]).detach()
        return loss, {"shift_candidates": relative_shift(moved_embedding, clean, triplets.anchor_positive)}

    def _anchor(
        self, model: nn.Module, triplets: Triplets, sigma: Float[Tensor, ""], budget: Budget
    ) -> tuple[Float[Tensor, ""], Diagnostics]:
        objective = anchor_objective(triplets, sigma, self.collapseness, self.settings.anchor_hardness_term)
        moved = perturb(model, triplets.anchor, objective, budget)
        anchor, positive, negative = embed_triplets(model, moved, triplets.positive, triplets.negative)
        to_positive, to_negative = distances(anchor, positive), distances(anchor, negative)
        loss = triplet_loss(to_positive, to_negative, self.margin) + top_ranked_triplet_loss(
            to_positive, to_negative, self.settings.top_ranked_coefficient, self.settings.top_ranked_margin
        )
        shift = relative_shift(anchor.detach(), triplets.anchor_embedding, triplets.anchor_positive)
        return loss, {"shift_anchor": shift}

    def state_dict(self) -> dict[str, Any]:
        """Nothing is carried from batch to batch: the phase follows from the step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
