"""Attacks as the code behind the papers' numbers (RobRank) runs them, for the `published` protocol.

Where a paper's number rests on a weakness of that code, the weakness is kept here, and only here.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from colotride.evaluation import ranking, targets
from colotride.evaluation.attacks.base import AttackBatch, Outcomes, embedded, published
from colotride.evaluation.attacks.embeddings import START_NOISE, EmbeddingShift
from colotride.evaluation.attacks.matches import GreedyMismatch, LearningToMismatch, mismatch
from colotride.evaluation.attacks.ranks import CandidateLowered, QueryLowers
from colotride.pgd import Objective, perturb
from colotride.pgd_settings import Budget


class PublishedShift:
    """ES's loss, - F.pairwise_distance(f(q~), f(q)), which adds 1e-6 to every difference.

    At the first pass, where both are the same, f(q) is moved by the constant 1e-7 as well. An object is for one
    perturbation from the clean images: it counts its passes, and remembers the last one.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.clean: Tensor | None = None
        """What the first pass found."""
        self.last: Tensor | None = None
        """What the last pass found, before the step that followed it."""

    def __call__(self, moved: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        """Each image's loss."""
        self.last = moved.detach()
        self.passes += 1
        if self.clean is None:
            self.clean = moved.detach()
            return -functional.pairwise_distance(moved, self.clean + START_NOISE)
        return -functional.pairwise_distance(moved, self.clean)


@published("ES")
class PublishedEmbeddingShift(EmbeddingShift):
    """ES that reports R@1 after the last step, but the shift from the forward pass before it."""

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `PublishedShift`."""
        return PublishedShift()

    def run(self, model: nn.Module, images: Tensor, attacked: AttackBatch, budget: Budget) -> Outcomes:
        """See `Attack`; the shift is that of the last pass inside PGD."""
        loss = PublishedShift()
        moved = embedded(model, perturb(model, images, loss, budget))
        last, clean = (moved if one is None else one for one in (loss.last, loss.clean))
        return self.measure(attacked, moved) | {"ES:D": functional.pairwise_distance(last, clean)}


@published("LTM")
class PublishedLearningToMismatch(LearningToMismatch):
    """LTM in which the query's own clean embedding counts as one of its matches."""

    def objective(self, attacked: AttackBatch) -> Objective:
        """See `Attack`."""
        _, other = ranking.same_and_other(attacked.gallery.labels, attacked.moving)
        return mismatch(attacked, ~other, other)


@published("GTM")
class PublishedGreedyMismatch(GreedyMismatch):
    """GTM whose target is found by a wrong index and a wrong class; see `published_unmatch`."""

    draw = staticmethod(targets.published_unmatch)


@published("CA-")
class PublishedCandidateLowered(CandidateLowered):
    """CA- that draws from 1 % of the gallery, rounded down."""

    draw = staticmethod(targets.published_among_nearest)


@published("QA-")
class PublishedQueryLowers(QueryLowers):
    """QA- that draws from 1 % of the gallery, rounded down."""

    draw = staticmethod(targets.published_among_nearest)
