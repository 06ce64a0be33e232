"""The defenses: each registers itself when its module is imported."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from colotride.defenses import act, assist, colo_tride, est, hardness_manipulation, naive, natural
from colotride.defenses.step import Perturbation, PerturbedParts, TripletDefense
from colotride.defenses.triplets import (
    Batch,
    CollapsenessSettings,
    Defense,
    DefenseContext,
    DefenseSettings,
    Diagnostics,
    Parts,
    StepInfo,
    Triplets,
)
from colotride.registry import DEFENSES

BUILT_IN = (natural, naive, est, act, hardness_manipulation, colo_tride, assist)
"""Modules of ColoTride's own defenses; a new one is a new file and its name here."""

__all__ = [
    "DEFENSES",
    "AnyDefenseSettings",
    "Batch",
    "CollapsenessSettings",
    "Defense",
    "DefenseContext",
    "DefenseSettings",
    "Diagnostics",
    "Parts",
    "Perturbation",
    "PerturbedParts",
    "StepInfo",
    "TripletDefense",
    "Triplets",
    "build_defense",
]


def _by_name(value: Any) -> Any:
    """Validate plain values by the settings of the defense that they name."""
    if not isinstance(value, Mapping) or "name" not in value:
        return value
    if value["name"] not in DEFENSES:
        # Only the name is validated then, so that the error is about the name and not about the other keys.
        return {"name": value["name"]}
    return DEFENSES[value["name"]].Settings.model_validate(dict(value))


AnyDefenseSettings = Annotated[SerializeAsAny[DefenseSettings], BeforeValidator(_by_name)]
"""Settings of any registered defense, chosen by their name."""


def build_defense(settings: DefenseSettings, context: DefenseContext) -> Defense:
    """Build the defense that a configuration asks for."""
    defense: Defense = DEFENSES[settings.name](settings, context)
    return defense
