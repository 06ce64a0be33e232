"""The mean hardness as an objective, for the defenses that have no stop."""

from jaxtyping import Float
from torch import Tensor

from colotride.defenses.step import PerturbedParts, clean_embeddings
from colotride.defenses.triplets import Parts, Triplets
from colotride.geometry import hardness
from colotride.pgd import Objective


def complete(triplets: Triplets, moving: PerturbedParts, embeddings: Float[Tensor, "images dim"]) -> Parts:
    """Embeddings of all parts: the moving ones as they are now, the others as they are without perturbation."""
    clean = clean_embeddings(triplets)
    if moving == "anchor":
        return clean._replace(anchor=embeddings)
    if moving == "candidates":
        positive, negative = embeddings.chunk(2)
        return clean._replace(positive=positive, negative=negative)
    return Parts(*embeddings.chunk(3))


def hardness_of(triplets: Triplets, parts: Parts) -> Float[Tensor, "triplets"]:
    """H = d(A,P) - d(A,N) of each triplet (Eq. 2) in the metric of the training."""
    return hardness(triplets.distances(parts.anchor, parts.positive), triplets.distances(parts.anchor, parts.negative))


def hardness_objective(triplets: Triplets, moving: PerturbedParts, sigma: float) -> Objective:
    """-sigma mean H: raises the mean hardness for sigma = +1, lowers it for -1, and never stops.

    Args:
        triplets: clean.
        moving: the parts whose embeddings the objective is a function of.
        sigma: direction.
    """

    def objective(embeddings: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
        return -sigma * hardness_of(triplets, complete(triplets, moving, embeddings)).mean()

    return objective
