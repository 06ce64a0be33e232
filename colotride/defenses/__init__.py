"""The defenses, and the one registry that knows them all."""

from typing import Annotated

from pydantic import Field

from colotride.defenses.base import Batch, CollapsenessSettings, Defense, Diagnostics, Moment, Triplets
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.natural import Natural, NaturalSettings
from colotride.mining import MinerName
from colotride.pgd import PGDSettings

DefenseSettings = Annotated[NaturalSettings | ColoTrideSettings, Field(discriminator="name")]

__all__ = [
    "Batch",
    "CollapsenessSettings",
    "Defense",
    "DefenseSettings",
    "Diagnostics",
    "Moment",
    "Triplets",
    "build_defense",
]


def build_defense(
    settings: NaturalSettings | ColoTrideSettings,
    *,
    pgd: PGDSettings,
    margin: float,
    miner: MinerName,
    collapseness: CollapsenessSettings,
) -> Defense:
    """The defense that a configuration asks for."""
    match settings:
        case NaturalSettings():
            return Natural(margin, miner, collapseness)
        case ColoTrideSettings():
            return ColoTride(settings, pgd, margin, miner, collapseness)
