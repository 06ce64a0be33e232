"""The defenses, and the one registry that knows them all."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from colotride.defenses.act import Act, ActSettings
from colotride.defenses.assist import Assist, AssistSettings
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.est import Est, EstSettings
from colotride.defenses.hardness_manipulation import HardnessManipulation, HardnessManipulationSettings
from colotride.defenses.naive import Naive, NaiveSettings, NaiveTride, NaiveTrideSettings
from colotride.defenses.natural import Natural, NaturalSettings
from colotride.defenses.triplets import (
    Batch,
    CollapsenessSettings,
    Defense,
    DefenseContext,
    DefenseSettings,
    Diagnostics,
    StepInfo,
    Triplets,
)

AnyDefenseSettings = Annotated[
    NaturalSettings
    | NaiveSettings
    | NaiveTrideSettings
    | EstSettings
    | ActSettings
    | HardnessManipulationSettings
    | ColoTrideSettings
    | AssistSettings,
    Field(discriminator="name"),
]

BUILDERS: Mapping[type[DefenseSettings], Callable[[Any, DefenseContext], Defense]] = {
    NaturalSettings: lambda settings, context: Natural(context),
    NaiveSettings: lambda settings, context: Naive(context),
    NaiveTrideSettings: NaiveTride,
    EstSettings: lambda settings, context: Est(context),
    ActSettings: lambda settings, context: Act(context),
    HardnessManipulationSettings: HardnessManipulation,
    ColoTrideSettings: ColoTride,
    AssistSettings: Assist,
}

DEFENSES: Mapping[str, type[DefenseSettings]] = {kind.model_fields["name"].default: kind for kind in BUILDERS}
"""Settings by the name of their defense."""

__all__ = [
    "DEFENSES",
    "AnyDefenseSettings",
    "Batch",
    "CollapsenessSettings",
    "Defense",
    "DefenseContext",
    "Diagnostics",
    "StepInfo",
    "Triplets",
    "build_defense",
]


def build_defense(settings: DefenseSettings, context: DefenseContext) -> Defense:
    """Build the defense that a configuration asks for."""
    return BUILDERS[type(settings)](settings, context)
