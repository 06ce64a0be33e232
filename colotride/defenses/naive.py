"""Naive adversarial training: the same perturbations without COLO. It collapses, and that can be shown with it."""

from typing import Literal

import torch

from colotride.defenses.base import DefenseSettings, Diagnostics, Moment, Recipe, Triplets
from colotride.defenses.colo_tride import TrideSettings
from colotride.defenses.hardness import hardness_objective
from colotride.defenses.training_step import Moving, Plan, TripletDefense


class NaiveTrideSettings(TrideSettings):
    """Naive CAP, naive ANP and naive TRIDE: sigma = +1 always, and no stop at C = 0."""

    name: Literal["naive-tride"] = "naive-tride"


class NaiveTride(TripletDefense):
    """Maximises the mean hardness by moving candidates (CAP) or anchors (ANP), by turns or one alone."""

    def __init__(self, settings: NaiveTrideSettings, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.settings = settings

    def moving(self, moment: Moment) -> Moving:
        """The part whose turn it is."""
        return self.settings.phase(moment.step)

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Attack the part whose turn it is."""
        moving = self.settings.phase(moment.step)
        objective = hardness_objective(triplets, moving, sigma=1.0)
        if moving == "candidates":
            return Plan(objective)
        return Plan(objective, extra_loss=lambda embedded, _: self.settings.top_ranked_loss(embedded, triplets))


class NaiveSettings(DefenseSettings):
    """Naive AT has nothing to choose."""

    name: Literal["naive"] = "naive"


class Naive(TripletDefense):
    """Naive AT with simultaneous perturbation (SIP): A, P and N all move to maximise the mean hardness."""

    def moving(self, moment: Moment) -> Moving:
        """All parts."""
        return "all"

    def plan(self, triplets: Triplets, diagnostics: Diagnostics, moment: Moment, generator: torch.Generator) -> Plan:
        """Attack all parts at once."""
        return Plan(hardness_objective(triplets, "all", sigma=1.0))
