"""Assistance without attack: the ablations "assist-part" and "assist-full" of the paper's Table 4."""

from typing import Literal

import torch

from colotride.defenses.anchor import anchor_objective
from colotride.defenses.base import Diagnostics, Moment, Recipe, Triplets
from colotride.defenses.candidate import candidate_objective
from colotride.defenses.colo_tride import TrideSettings
from colotride.defenses.hardness import hardness_objective
from colotride.defenses.training_step import Moving, Plan, TripletDefense
from colotride.mining import shrinking_margin


class AssistSettings(TrideSettings):
    """When the model is assisted."""

    name: Literal["assist"] = "assist"
    when: Literal["collapsing", "always"] = "collapsing"
    """Only while C > 0, natural training otherwise (assist-part), or in every batch (assist-full)."""


class Assist(TripletDefense):
    """Lowers the hardness of triplets before training on them.

    assist-part minimises relu(C): nothing moves while C <= 0. assist-full minimises the mean hardness in every batch:
    with relu(C) it would be the same as assist-part, so it has no stop.
    """

    def __init__(self, settings: AssistSettings, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.settings = settings

    def band(self, moment: Moment) -> float:
        """As in COLO-TRIDE, of which this is an ablation (Eq. 32)."""
        return shrinking_margin(self.recipe.margin, moment.epoch, moment.epochs)

    def moving(self, moment: Moment) -> Moving:
        """The part whose turn it is."""
        return self.settings.phase(moment.step)

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Assist the part whose turn it is."""
        settings, collapseness = self.settings, diagnostics["collapseness"]
        moving = settings.phase(moment.step)
        if settings.when == "always":
            objective, assisted = hardness_objective(triplets, moving, sigma=-1.0), torch.ones_like(collapseness)
        else:
            make = candidate_objective if moving == "candidates" else anchor_objective
            objective = make(triplets, -torch.ones_like(collapseness), self.recipe.collapseness)
            assisted = (collapseness > 0).to(collapseness.dtype)
        if moving == "candidates":
            return Plan(objective, assist=assisted)
        return Plan(
            objective,
            extra_loss=lambda embedded, _: settings.top_ranked_loss(embedded, triplets),
            assist=assisted,
        )
