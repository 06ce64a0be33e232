"""HM[S, g_LGA] with or without ICS: hardness manipulation towards a gradual destination (Zhou and Patel, 2022)."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from colotride.defenses.hardness import complete, hardness_of
from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import DefenseContext, DefenseSettings, Diagnostics, Parts, StepInfo, Triplets
from colotride.registry import register_defense


class HardnessManipulationSettings(DefenseSettings):
    """The weight of the intra-class structure."""

    recommended: ClassVar[dict[str, Any]] = {
        "pgd.steps": 32,
        "pgd.ramp": "constant",
        "training.miner": "softhard",
    }
    name: Literal["hm"] = "hm"
    intra_class_coefficient: float = Field(default=0.5, ge=0)
    """lambda_ics of the intra-class structure: 0.5, on SOP 0.05; 0 is HM without ICS."""


def gradual_destination(previous_loss: Float[Tensor, ""], margin: float) -> Float[Tensor, ""]:
    """H_dest = -margin clip(previous loss, 0, margin) / margin: from easy (-margin) to 0 as training succeeds."""
    return -margin * previous_loss.clamp(0, margin) / margin


@register_defense("hm")
class HardnessManipulation(TripletDefense[HardnessManipulationSettings]):
    """Moves all parts of softhard triplets until their hardness reaches a destination that grows with success."""

    Settings = HardnessManipulationSettings

    def __init__(
        self,
        settings: HardnessManipulationSettings | None = None,
        context: DefenseContext | None = None,
        *,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(settings, context, seed=seed, **options)
        self.trains_clean_too = self.settings.intra_class_coefficient > 0
        # Before the first batch nothing has been learnt: the weakest adversary.
        self._previous_loss = torch.tensor(self.context.margin)

    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """All parts."""
        return "all"

    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Minimise mean relu(H_dest - H)^2; a triplet that is hard enough stops moving."""
        previous = self._previous_loss.to(triplets.anchor_embedding.device)
        destination = gradual_destination(previous, self.context.margin)

        def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
            return (
                torch.relu(destination - hardness_of(triplets, complete(triplets, "all", embeddings))).square().mean()
            )

        if self.settings.intra_class_coefficient == 0:
            return Perturbation(objective)
        return Perturbation(
            objective, extra_loss=lambda embedded, clean: self._intra_class_structure(triplets, embedded, clean)
        )

    def _intra_class_structure(self, triplets: Triplets, embedded: Parts, clean: Parts) -> Tensor:
        """ICS: lambda_ics mean relu(d(A, A~) - d(A, P)): a perturbed anchor stays nearer than another image."""
        shift = triplets.distances(clean.anchor, embedded.anchor)
        to_positive = triplets.distances(clean.anchor, clean.positive)
        return self.settings.intra_class_coefficient * torch.relu(shift - to_positive).mean()

    def after(self, loss: Float[Tensor, ""]) -> None:
        """The next batch's destination follows this batch's adversarial loss."""
        self._previous_loss = loss

    def state_dict(self) -> dict[str, Any]:
        """The previous batch's adversarial loss."""
        return {"previous_loss": self._previous_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the previous batch's adversarial loss."""
        self._previous_loss = state["previous_loss"]
