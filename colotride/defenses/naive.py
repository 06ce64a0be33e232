"""Naive adversarial training: the same perturbations without COLO. Training collapses under them."""

from typing import Literal

import torch

from colotride.defenses.colo_tride import DecoupledDefense, TrideSettings
from colotride.defenses.hardness import hardness_objective
from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseSettings, Diagnostics, StepInfo, Triplets
from colotride.registry import register_defense


class NaiveTrideSettings(TrideSettings):
    """Naive CAP, naive ANP and naive TRIDE: sigma = +1 always, and no stop at C = 0."""

    name: Literal["naive-tride"] = "naive-tride"


@register_defense("naive-tride")
class NaiveTride(DecoupledDefense[NaiveTrideSettings]):
    """Maximises the mean hardness by moving candidates (CAP) or anchors (ANP), alternately or one alone."""

    Settings = NaiveTrideSettings

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Attack by moving the part of this step."""
        moving = self.settings.phase(info.step)
        objective = hardness_objective(triplets, moving, sigma=1.0)
        return Perturbation(objective, extra_loss=self.settings.extra_loss(info.step, triplets))


class NaiveSettings(DefenseSettings):
    """Naive AT has no settings of its own."""

    name: Literal["naive"] = "naive"


@register_defense("naive")
class Naive(TripletDefense[NaiveSettings]):
    """Naive AT with simultaneous perturbation (SIP): A, P and N all move to maximise the mean hardness."""

    Settings = NaiveSettings

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """All parts."""
        return "all"

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Attack all parts at once."""
        return Perturbation(hardness_objective(triplets, "all", sigma=1.0))
