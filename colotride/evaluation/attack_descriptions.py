"""What each of the ten numbers after the attacks means, in the words that reports and documentation show."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["rank", "share", "cosine", "distance"]


@dataclass(frozen=True)
class AttackDescription:
    """One number of Table 1."""

    column: str
    """As in `colotride.evaluation.scores.ATTACK_COLUMNS`."""
    name: str
    moves: str
    """The image whose pixels the attack changes."""
    goal: str
    """Where the attack wants it to go."""
    reported: str
    robust: Literal["higher", "lower"]
    """Which direction is good for the model."""
    unit: Unit

    @property
    def drawing(self) -> str:
        """Name of its picture in `colotride.evaluation.attack_drawings`; both numbers of ES share one."""
        return self.column.partition(":")[0]

    @property
    def arrow(self) -> str:
        """Points in the direction that is good for the model."""
        return "↑" if self.robust == "higher" else "↓"


DESCRIPTIONS = (
    AttackDescription(
        "CA+",
        "candidate attack, raising",
        "one gallery image, the candidate",
        "to the first place in the results of a query drawn at random",
        "mean rank of the candidate for that query; a random order gives 50 %",
        "higher",
        "rank",
    ),
    AttackDescription(
        "CA-",
        "candidate attack, lowering",
        "one gallery image, the candidate",
        "to the last place in the results of a query drawn from its nearest 1 %",
        "mean rank of the candidate for that query",
        "lower",
        "rank",
    ),
    AttackDescription(
        "QA+",
        "query attack, raising",
        "the query",
        "to where a gallery image drawn at random becomes its first result",
        "mean rank of that image; a random order gives 50 %",
        "higher",
        "rank",
    ),
    AttackDescription(
        "QA-",
        "query attack, lowering",
        "the query",
        "to where an image drawn from its nearest 1 % becomes its last result",
        "mean rank of that image",
        "lower",
        "rank",
    ),
    AttackDescription(
        "TMA",
        "targeted mismatch attack",
        "the query",
        "onto the embedding of an image drawn at random",
        "mean cosine similarity to that embedding; 1 means that the query arrived",
        "lower",
        "cosine",
    ),
    AttackDescription(
        "ES:D",
        "embedding shift, distance",
        "the query",
        "as far from its own clean embedding as possible",
        "mean distance between the two embeddings, 0 to 2",
        "lower",
        "distance",
    ),
    AttackDescription(
        "ES:R",
        "embedding shift, recall",
        "the query",
        "as far from its own clean embedding as possible",
        "R@1 after the attack: queries whose first result is of their own class",
        "higher",
        "share",
    ),
    AttackDescription(
        "LTM",
        "learning to misrank",
        "the query",
        "away from its nearest image of the same class, towards its farthest of another",
        "R@1 after the attack",
        "higher",
        "share",
    ),
    AttackDescription(
        "GTM",
        "greedy top-1 misranking",
        "the query",
        "onto the nearest image of another class",
        "R@1 after the attack",
        "higher",
        "share",
    ),
    AttackDescription(
        "GTT",
        "greedy top-1 translocation",
        "the query",
        "to where its first result is no longer among the first four",
        "queries whose former first result is still among the first four",
        "higher",
        "share",
    ),
)
"""In the order of Table 1."""
