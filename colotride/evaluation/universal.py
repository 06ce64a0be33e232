"""Universal perturbations: one change, the same for every image, that makes queries lose their matches.

Trained on some of the queries and judged on the others (Moosavi-Dezfooli et al., CVPR 2017; Li et al., ICCV 2019, for
retrieval).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from colotride.evaluation import ranking
from colotride.evaluation.attacks import AttackBatch, embedded
from colotride.evaluation.attacks.matches import match_margin
from colotride.evaluation.measurement import Figures, Measurement, mean
from colotride.pgd import perturb
from colotride.pgd_settings import Budget
from colotride.randomness import generator

Batches = Callable[[], Iterable[tuple[Tensor, AttackBatch]]]

MEANING = (
    "One perturbation, the same for every image, was trained on half of the queries to make them lose their matches, and is "
    "judged on the other half. A random perturbation of the same size stands beside it. A high R@1 after is robust."
)


class _WithOneChange(nn.Module):
    """Maps a change, stored as an image (change + 1) / 2, to the embeddings of all images that are changed by it."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model, self.images = model, images

    def forward(self, change: Tensor) -> Tensor:
        embeddings: Tensor = self.model((self.images + 2 * change - 1).clamp(0, 1))
        return embeddings


def universal_perturbation(
    model: nn.Module, batches: Batches, budget: Budget
) -> Float[Tensor, "1 channels height width"]:
    """Train one change that lowers the distance margin of R@1 on all queries.

    Each pass over the queries takes one step of PGD per batch.

    Args:
        model: maps pixels in [0, 1] to unit vectors.
        batches: the queries to train on, with their places in the gallery.
        budget: radius, norm, step size and passes over the queries.

    Returns:
        The change, within the ball around 0.
    """
    # An image of (change + 1) / 2 lies in [0, 1] whatever the change, and moves half as far.
    half = replace(budget, epsilon=budget.epsilon / 2, step_size=budget.step_size / 2, steps=1)
    centre = moving = None
    for _ in range(budget.steps):
        for images, attacked in batches():
            if centre is None or moving is None:
                centre = moving = torch.full_like(images[:1], 0.5)
            moving = perturb(_WithOneChange(model, images), centre, match_margin(attacked), half, moving)
    if moving is None:
        raise ValueError("there are no queries to train on")
    return 2 * moving - 1


def random_change(
    like: Float[Tensor, "1 channels height width"], budget: Budget, random: torch.Generator
) -> Float[Tensor, "1 channels height width"]:
    """Random signs, as large as the ball allows."""
    signs = (torch.randint(0, 2, like.shape, generator=random) * 2 - 1).to(like)
    size = budget.epsilon if budget.norm == "linf" else budget.epsilon / like.numel() ** 0.5
    return size * signs


def universal_measurement(
    model: nn.Module,
    trained_on: Batches,
    judged_on: Batches,
    budget: Budget,
    seed: int,
) -> Measurement:
    """The table of the universal perturbation.

    Args:
        model: maps pixels in [0, 1] to unit vectors.
        trained_on: queries of which the perturbation is made.
        judged_on: other queries.
        budget: radius, norm, step size and passes.
        seed: of the random perturbation beside it.
    """
    started = time.perf_counter()
    change = universal_perturbation(model, trained_on, budget)
    random = random_change(change, budget, generator(seed, "evaluation", "universal"))
    seen = sum(len(images) for images, _ in trained_on())
    unseen = sum(len(images) for images, _ in judged_on())
    rows = {
        f"{seen} queries it was trained on": changed_queries(model, trained_on, change),
        f"{unseen} other queries": changed_queries(model, judged_on, change),
        "random change, other queries": changed_queries(model, judged_on, random),
    }
    settings = {"epsilon": budget.epsilon, "norm": budget.norm, "passes": budget.steps}
    calls = seen * (budget.steps + 1) + 2 * unseen
    return Measurement(
        "universal", "One perturbation for all images", MEANING, rows, settings, calls, time.perf_counter() - started
    )


def changed_queries(model: nn.Module, batches: Batches, change: Float[Tensor, "1 channels height width"]) -> Figures:
    """R@1 of queries before and after all of them are changed alike, and how far their embeddings move."""
    before, after, shift = [], [], []
    for images, attacked in batches():
        moved, places = embedded(model, (images + change).clamp(0, 1)), attacked.moving
        before.append(ranking.first_result_is_match(attacked.gallery, attacked.clean, places))
        after.append(ranking.first_result_is_match(attacked.gallery, moved, places))
        shift.append(ranking.embedding_shift(attacked.gallery, moved, places))
    columns = {"R@1 before": before, "R@1 after": after, "mean shift": shift}
    return {name: mean(torch.cat(values)) for name, values in columns.items()}
