"""Assistance without attack: the ablations "assist-part" and "assist-full" of the paper's Table 4."""

from typing import Literal

import torch

from colotride.defenses.anchor import anchor_objective
from colotride.defenses.candidate import candidate_objective
from colotride.defenses.colo_tride import DecoupledDefense, TrideSettings
from colotride.defenses.hardness import hardness_objective
from colotride.defenses.step import Perturbation
from colotride.defenses.triplets import Diagnostics, StepInfo, Triplets
from colotride.mining import shrinking_margin
from colotride.registry import register_defense


class AssistSettings(TrideSettings):
    """When the model is assisted."""

    name: Literal["assist"] = "assist"
    when: Literal["collapsing", "always"] = "collapsing"
    """Only while C > 0, natural training otherwise (assist-part), or in every batch (assist-full)."""


@register_defense("assist")
class Assist(DecoupledDefense[AssistSettings]):
    """Lowers the hardness of triplets before training on them.

    assist-part minimises relu(C): nothing moves while C <= 0. assist-full minimises the mean hardness in every batch:
    with relu(C) it would be the same as assist-part, so it has no stop.
    """

    Settings = AssistSettings

    def semi_hard_margin(self, info: StepInfo) -> float:
        """As in COLO-TRIDE, of which this is an ablation (Eq. 32)."""
        return shrinking_margin(self.context.margin, info.epoch, info.epochs)

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Assist by moving the part of this step."""
        settings, collapseness = self.settings, diagnostics["collapseness"]
        moving = settings.phase(info.step)
        if settings.when == "always":
            objective, assisted = hardness_objective(triplets, moving, sigma=-1.0), torch.ones_like(collapseness)
        else:
            make = candidate_objective if moving == "candidates" else anchor_objective
            objective = make(triplets, -torch.ones_like(collapseness), self.context.collapseness)
            assisted = (collapseness > 0).to(collapseness.dtype)
        return Perturbation(objective, extra_loss=settings.extra_loss(info.step, triplets), assist=assisted)
