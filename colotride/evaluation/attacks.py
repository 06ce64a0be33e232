"""The ten attack numbers: each attack draws its targets, minimises its loss, and measures what it reached.

Every loss is a sum over images of each one's own loss. PGD uses only the sign of the gradient, so the sum gives every
image the perturbation that it would get alone: batches change nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride.evaluation import ranking, targets
from colotride.evaluation.gallery import Gallery, checked
from colotride.evaluation.settings import Protocol
from colotride.geometry import distance_matrix, distances
from colotride.pgd import Budget, Objective, frozen, perturb

DrawTargets = Callable[[Gallery, Int[Tensor, "queries"], torch.Generator], Int[Tensor, "queries"]]
Measured = dict[str, Tensor]


@dataclass(frozen=True)
class AttackBatch:
    """A batch under attack: which images move, and which image is each one's target."""

    gallery: Gallery
    moving: Int[Tensor, "batch"]
    target: Int[Tensor, "batch"]

    @property
    def target_embedding(self) -> Float[Tensor, "batch dim"]:
        """Clean embeddings of the targets."""
        return self.gallery.embeddings[self.target]


@dataclass(frozen=True)
class Attack:
    """One attack: how its targets are drawn, what it minimises and what is reported."""

    name: str
    draw: DrawTargets
    objective: Callable[[AttackBatch], Objective]
    measure: Callable[[AttackBatch, Tensor], Measured]
    """From the embeddings of the moving images, clean or perturbed, to the reported values of each image."""
    run: Callable[..., Measured]
    """Perturbs and measures; see `run_attack`."""


def run_attack(
    attack: Attack,
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    budget: Budget,
) -> Measured:
    """Perturb a batch, and measure.

    Args:
        attack: what to minimise and to measure.
        model: maps pixels in [0, 1] to unit vectors.
        images: the moving images.
        attacked: their places and their targets.
        budget: radius, step size, steps.
    """
    return attack.measure(attacked, _embed(model, perturb(model, images, attack.objective(attacked), budget)))


def run_attack_reporting_last_forward(
    attack: Attack, model: nn.Module, images: Tensor, attacked: AttackBatch, budget: Budget
) -> Measured:
    """ES as RobRank's code reports it: R@1 after the last step, but the shift from the forward pass before it."""
    objective = attack.objective(attacked)
    before = perturb(model, images, objective, replace(budget, steps=budget.steps - 1))
    after = perturb(model, images, objective, replace(budget, steps=1), start=before)
    late = attack.measure(attacked, _embed(model, before))
    return attack.measure(attacked, _embed(model, after)) | {"ES:D": late["ES:D"]}


def attacks(protocol: Protocol) -> list[Attack]:
    """The nine attacks behind the ten numbers, in the order of the paper's tables."""
    strict = protocol == "strict"
    return [
        Attack("CA+", targets.random_others, _candidate_raised, _candidate_rank("CA+"), run_attack),
        Attack("CA-", targets.random_among_nearest, _candidate_lowered, _candidate_rank("CA-"), run_attack),
        Attack("QA+", targets.random_others, _query_raises, _query_rank("QA+"), run_attack),
        Attack("QA-", targets.random_among_nearest, _query_lowers, _query_rank("QA-"), run_attack),
        Attack("TMA", targets.random_others, _towards_target, _cosine, run_attack),
        Attack("ES", _itself, _away, _shift, run_attack if strict else run_attack_reporting_last_forward),
        Attack("LTM", _itself, _mismatch if strict else _mismatch_with_itself, _hit("LTM"), run_attack),
        Attack(
            "GTM",
            targets.nearest_of_other_class if strict else targets.published_unmatch,
            _meet,
            _hit("GTM"),
            run_attack,
        ),
        Attack("GTT", targets.nearest_others, _query_lowers, _still_in_top, run_attack),
    ]


def _embed(model: nn.Module, images: Tensor) -> Tensor:
    with frozen(model) as embed, torch.no_grad():
        return checked(embed(images), len(images), images.device)


def _itself(gallery: Gallery, moving: Tensor, random: torch.Generator) -> Tensor:
    return moving


def _candidate_raised(attacked: AttackBatch) -> Objective:
    """CA+: mean relu(d(q, c~) - B(q)), B(q) the distances from q to the whole gallery."""
    baseline = distance_matrix(attacked.target_embedding, attacked.gallery.embeddings)
    return lambda moved: torch.relu(distances(attacked.target_embedding, moved)[:, None] - baseline).mean(dim=1).sum()


def _candidate_lowered(attacked: AttackBatch) -> Objective:
    """CA-: mean relu(B(q) - d(q, c~))."""
    baseline = distance_matrix(attacked.target_embedding, attacked.gallery.embeddings)
    return lambda moved: torch.relu(baseline - distances(attacked.target_embedding, moved)[:, None]).mean(dim=1).sum()


def _query_raises(attacked: AttackBatch) -> Objective:
    """QA+: mean relu(d(q~, c) - B(q~)), B(q~) the distances from the perturbed query to the whole gallery."""

    def objective(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        baseline = distance_matrix(moved, attacked.gallery.embeddings)
        return torch.relu(distances(moved, attacked.target_embedding)[:, None] - baseline).mean(dim=1).sum()

    return objective


def _query_lowers(attacked: AttackBatch) -> Objective:
    """QA-, GTT: mean relu(B(q~) - d(q~, c))."""

    def objective(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        baseline = distance_matrix(moved, attacked.gallery.embeddings)
        return torch.relu(baseline - distances(moved, attacked.target_embedding)[:, None]).mean(dim=1).sum()

    return objective


def _towards_target(attacked: AttackBatch) -> Objective:
    """TMA: 1 - cos(f(q~), t)."""
    return lambda moved: (1 - (moved * attacked.target_embedding).sum(dim=1)).sum()


def _away(attacked: AttackBatch) -> Objective:
    """ES: - d(f(q~), f(q)), the clean embedding shaken by 1e-7: the gradient at distance 0 has no direction.

    The noise has alternating signs instead of random ones, so that neither seeds nor batches change it.
    """
    clean = attacked.target_embedding
    signs = torch.ones(clean.shape[1], device=clean.device)
    signs[1::2] = -1
    return lambda moved: -distances(moved, clean + 1e-7 * signs).sum()


def _mismatch(attacked: AttackBatch) -> Objective:
    """LTM: relu(max d(q~, other class) - min d(q~, same class)), the query itself left out."""
    same, other = ranking.same_and_other(attacked.gallery, attacked.moving)
    return _mismatch_objective(attacked.gallery, same, other)


def _mismatch_with_itself(attacked: AttackBatch) -> Objective:
    """LTM as published: the query's own clean embedding counts as one of its matches."""
    _, other = ranking.same_and_other(attacked.gallery, attacked.moving)
    return _mismatch_objective(attacked.gallery, ~other, other)


def _mismatch_objective(gallery: Gallery, same: Tensor, other: Tensor) -> Objective:
    def objective(moved: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        to_gallery = distance_matrix(moved, gallery.embeddings)
        farthest_other = to_gallery.masked_fill(~other, -torch.inf).amax(dim=1)
        nearest_match = to_gallery.masked_fill(~same, torch.inf).amin(dim=1)
        return torch.relu(farthest_other - nearest_match).sum()

    return objective


def _meet(attacked: AttackBatch) -> Objective:
    """GTM: d(q~, c), c of another class."""
    return lambda moved: distances(moved, attacked.target_embedding).sum()


def _candidate_rank(name: str) -> Callable[[AttackBatch, Tensor], Measured]:
    def measure(attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Measured:
        rank = ranking.percentile_rank(
            attacked.gallery, attacked.target_embedding, embeddings, attacked.target, attacked.moving
        )
        return {name: rank}

    return measure


def _query_rank(name: str) -> Callable[[AttackBatch, Tensor], Measured]:
    def measure(attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Measured:
        rank = ranking.percentile_rank(
            attacked.gallery, embeddings, attacked.target_embedding, attacked.moving, attacked.target
        )
        return {name: rank}

    return measure


def _cosine(attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Measured:
    return {"TMA": (embeddings * attacked.target_embedding).sum(dim=1)}


def _shift(attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Measured:
    return {
        "ES:D": ranking.embedding_shift(attacked.gallery, embeddings, attacked.moving),
        "ES:R": ranking.first_result_is_match(attacked.gallery, embeddings, attacked.moving),
    }


def _hit(name: str) -> Callable[[AttackBatch, Tensor], Measured]:
    def measure(attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Measured:
        return {name: ranking.first_result_is_match(attacked.gallery, embeddings, attacked.moving)}

    return measure


def _still_in_top(attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Measured:
    return {"GTT": ranking.in_first_results(attacked.gallery, embeddings, attacked.moving, attacked.target, k=4)}
