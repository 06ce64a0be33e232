"""The nine attacks behind the ten numbers: each draws its targets, minimises its loss, and measures what it reached."""

from colotride.evaluation.attacks import embeddings, matches, published, ranks
from colotride.evaluation.attacks.base import (
    Attack,
    AttackBatch,
    Direction,
    Outcomes,
    attack_named,
    embedded,
)

__all__ = [
    "Attack",
    "AttackBatch",
    "Direction",
    "Outcomes",
    "attack_named",
    "embedded",
    "embeddings",
    "matches",
    "published",
    "ranks",
]
