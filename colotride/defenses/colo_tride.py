"""COLO-TRIDE: collapse-oriented adversarial training with triplet decoupling, and its parts COLO-CAP and COLO-ANP."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from colotride.defenses.anchor import HardnessTerm, anchor_objective
from colotride.defenses.candidate import candidate_objective
from colotride.defenses.direction import assist_enabled, direction
from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseSettings, Diagnostics, Parts, StepInfo, Triplets
from colotride.losses import top_ranked_triplet_loss
from colotride.mining import shrinking_margin
from colotride.registry import register_defense
from colotride.settings import Fraction

Phases = Literal["alternate", "candidates", "anchor"]


class TrideSettings(DefenseSettings):
    """Settings that decoupled defenses share: their phases and the top-ranked triplet."""

    phases: Phases = "alternate"
    """CAP and ANP alternately (TRIDE), CAP alone or ANP alone."""
    top_ranked_coefficient: float = Field(default=0.5, ge=0)
    """eta of the top-ranked triplet in ANP batches (Eq. 13)."""
    top_ranked_margin: float = Field(default=0.04, ge=0, le=2)
    """margin_top of the top-ranked triplet (Eq. 13)."""
    top_ranked_batches: Literal["anchor", "all"] = "anchor"
    """Batches whose loss has the top-ranked triplet: those that move the anchor, or every one (the released code)."""

    def phase(self, step: int) -> Literal["candidates", "anchor"]:
        """Which part of the triplets moves in a batch: CAP in even steps, ANP in odd ones, unless one runs alone."""
        if self.phases != "alternate":
            return self.phases
        return "candidates" if step % 2 == 0 else "anchor"

    def extra_loss(self, step: int, triplets: Triplets) -> Callable[[Parts, Parts], Tensor] | None:
        """What a batch adds to its base loss: the top-ranked triplet, in the batches that have it."""
        if self.top_ranked_batches == "anchor" and self.phase(step) == "candidates":
            return None
        return lambda embedded, _: self.top_ranked_loss(embedded, triplets)

    def top_ranked_loss(self, embedded: Parts, triplets: Triplets) -> Tensor:
        """The top-ranked triplet of an ANP batch (Eq. 9, 13)."""
        return top_ranked_triplet_loss(
            triplets.distances(embedded.anchor, embedded.positive),
            triplets.distances(embedded.anchor, embedded.negative),
            self.top_ranked_coefficient,
            self.top_ranked_margin,
        )


TrideSettingsT = TypeVar("TrideSettingsT", bound=TrideSettings)


class DecoupledDefense(TripletDefense[TrideSettingsT]):
    """Moves candidates or anchors, never both in one batch."""

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """The part that moves in this step."""
        return self.settings.phase(info.step)


class CollapseOrientedSettings(TrideSettings):
    """Settings that COLO-TRIDE and its relative form share."""

    assist_disabled_fraction: Fraction = Field(default=1 / 3, ge=0, le=1)
    """Share of the epochs, from the first on, in which every batch is attacked (Appendix C)."""
    anchor_hardness_term: HardnessTerm = "raise"
    """Sign of the first term of Eq. 11: as the paper says, as in the released code, or without it."""
    candidate_assist: bool = True
    """Whether CAP assists a collapsing batch. Without it (the released code) nothing moves while C > 0."""
    stop_at: float | None = Field(default=0.0, ge=-2, le=2)
    """C at which the relu of Eq. 10-11 ends a perturbation, 0 in the paper; None never ends it: it is the naive
    scheme then, which collapses on photographs and does not on Fashion-MNIST. The direction still changes at C = 0."""


class ColoTrideSettings(CollapseOrientedSettings):
    """Settings of COLO-TRIDE."""

    name: Literal["colo-tride"] = "colo-tride"


class RelativeColoTrideSettings(CollapseOrientedSettings):
    """Settings of COLO-TRIDE in relative distances."""

    recommended: ClassVar[dict[str, Any]] = {"training.loss": "relative-triplet", "training.margin": 0.4}
    name: Literal["colo-tride-relative"] = "colo-tride-relative"


CollapseOrientedSettingsT = TypeVar("CollapseOrientedSettingsT", bound=CollapseOrientedSettings)


class CollapseOriented(DecoupledDefense[CollapseOrientedSettingsT]):
    """Perturbs candidates (CAP) and anchors (ANP) alternately, in the direction that C of the clean batch decides.

    Minimises the base loss on the perturbed triplets, plus the top-ranked triplet in ANP batches (Eq. 9, 13).
    """

    def semi_hard_margin(self, info: StepInfo) -> float:
        """The semi-hard margin shrinks over the epochs (Eq. 32)."""
        return shrinking_margin(self.context.margin, info.epoch, info.epochs)

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Attack a healthy batch, assist a collapsing one, by moving the part of this step."""
        settings, collapseness = self.settings, self.context.collapseness
        assist = assist_enabled(info, settings.assist_disabled_fraction)
        sigma = direction(diagnostics["collapseness"], assist=assist)
        assisted = (sigma < 0).to(sigma.dtype)
        extra_loss = settings.extra_loss(info.step, triplets)
        if settings.phase(info.step) == "candidates":
            if not settings.candidate_assist:
                sigma = torch.ones_like(sigma)
                assisted = torch.zeros_like(assisted)
            objective = candidate_objective(triplets, sigma, collapseness, settings.stop_at)
            return Perturbation(objective, extra_loss=extra_loss, assist=assisted)
        term = settings.anchor_hardness_term
        return Perturbation(
            anchor_objective(triplets, sigma, collapseness, term, settings.stop_at),
            extra_loss=extra_loss,
            assist=assisted,
        )


@register_defense("colo-tride")
class ColoTride(CollapseOriented[ColoTrideSettings]):
    """COLO-TRIDE as the paper has it: the base loss is L_T (Eq. 1)."""

    Settings = ColoTrideSettings


@register_defense("colo-tride-relative")
class RelativeColoTride(CollapseOriented[RelativeColoTrideSettings]):
    """COLO-TRIDE with the triplet loss in units of the batch's mean distance, mean relu(H / m + margin).

    The perturbation is COLO-TRIDE's. Under it L_T falls to its margin when the embedding shrinks, whatever is
    retrieved; `colotride.losses.relative_triplet_loss` does not change when all distances shrink alike, so that only
    triplets which withstand the perturbation lower it. It is ours, not the paper's (docs/explanation/relative.md).
    """

    Settings = RelativeColoTrideSettings
