"""Attacks that need no gradient: the attacker asks a retrieval service, and counts how often.

All want one thing: that the first result of a query is no longer of its class. They differ in what the service tells:
distances (`square`, `nes`), only which images it returns (`qair`), or nothing at all (`transfer`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from colotride.evaluation import ranking, square
from colotride.evaluation.attacks import AttackBatch, embedded
from colotride.evaluation.attacks.matches import match_margin
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.measurement import Figures, Measurement, mean, median
from colotride.evaluation.retrieval_service import BlackBoxResult, RetrievalService
from colotride.evaluation.strength_settings import BlackBoxAttack
from colotride.pgd import Ball, frozen, perturb
from colotride.pgd_settings import Budget
from colotride.randomness import derive_seed, hashed_normal

NES_PAIRS, NES_SPREAD = 10, 0.01
"""Antithetic pairs of images per step of NES, and their standard deviation in pixel units."""

MEANING = (
    "Attacks without gradients want the first result to be of another class. Success is the share of the queries that "
    "succeeded among those whose first result was right at first; calls are images shown to the model; the rank is that of "
    "the query's first result before the attack, 0 % the best place. Few successes and many calls are robust."
)


def square_search(service: RetrievalService, ball: Ball, calls: int, seed: int) -> None:
    """Random search over square windows (Andriushchenko et al., 2020): a change stays unless the answer is worse.

    Args:
        service: what is asked.
        ball: around the clean images.
        calls: images per query.
        seed: of the windows.
    """
    height, width = ball.images.shape[2:]
    for step in range(calls):
        rows = service.open
        if len(rows) == 0:
            return
        part, queries = Ball.around(ball.images[rows], ball.epsilon, ball.norm), service.batch.moving[rows]
        now = derive_seed(seed, "step", step)
        if step == 0:
            proposed = square.stripes(part, queries, now)
        else:
            side = square.window_side(step - 1, calls, height, width)
            proposed = square.proposal(part, service.images[rows], queries, side, now)
        service.try_(proposed, rows)


def nes(service: RetrievalService, ball: Ball, calls: int, seed: int) -> None:
    """Natural evolution strategies (Ilyas et al., 2018): the gradient is estimated from pairs of noisy images.

    A step asks for `NES_PAIRS` pairs and for the image that it leads to; the number of steps is what the calls allow.

    Args:
        service: what is asked.
        ball: around the clean images.
        calls: images per query.
        seed: of the noise.
    """
    pairs = min(NES_PAIRS, max(1, (calls - 1) // 2))
    steps = calls // (2 * pairs + 1)
    moving = ball.images.clone()
    for step in range(steps):
        rows = service.open
        if len(rows) == 0:
            return
        part, queries = Ball.around(ball.images[rows], ball.epsilon, ball.norm), service.batch.moving[rows]
        here, gradient = moving[rows], torch.zeros_like(moving[rows])
        for pair in range(pairs):
            noise = hashed_normal(derive_seed(seed, step, pair), queries, here[0].numel()).view_as(here).to(here)
            ahead, behind = (service.ask((here + sign * NES_SPREAD * noise).clamp(0, 1), rows) for sign in (1, -1))
            gradient += (ahead - behind)[:, None, None, None] * noise
        moved = part.project_(here - min(1.0, 4 / steps) * ball.epsilon * part.direction_(gradient))
        moving[rows] = moved
        service.try_(moved, rows)


def run_black_box(
    name: Literal["square", "nes", "qair"],
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    budget: Budget,
    calls: int,
    seed: int,
) -> BlackBoxResult:
    """Attack a batch of queries without gradients.

    Args:
        name: square and nes see distances, qair only the returned list.
        model: maps pixels in [0, 1] to unit vectors.
        images: the queries.
        attacked: their places in the gallery; the targets play no part.
        budget: radius and norm.
        calls: images per query that may be shown to the model; nes needs 3 for a step.
        seed: of everything random.
    """
    ball = Ball.around(images, budget.epsilon, budget.norm)
    search = nes if name == "nes" else square_search
    with frozen(model) as embed, torch.no_grad():
        service = RetrievalService(embed, attacked, images, tells="list" if name == "qair" else "distances")
        search(service, ball, calls, derive_seed(seed, "evaluation", "black box", name))
    return service.result()


def run_transfer(
    surrogate: nn.Module,
    surrogate_gallery: Gallery,
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    budget: Budget,
) -> BlackBoxResult:
    """Perturb through a surrogate's gradients, and show the model one image per query.

    Args:
        surrogate: another model of the same images.
        surrogate_gallery: the gallery as it embeds it.
        model: the model that is attacked.
        images: the queries.
        attacked: their places in the model's gallery.
        budget: radius, norm, step size and steps on the surrogate.
    """
    seen = replace(attacked, gallery=surrogate_gallery)
    moved = perturb(surrogate, images, match_margin(seen), budget)
    with frozen(model) as embed, torch.no_grad():
        service = RetrievalService(embed, attacked, images, tells="distances")
        rows = service.open
        if len(rows):
            service.try_(moved[rows], rows)
    return service.result()


def black_box_values(
    name: BlackBoxAttack,
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    budget: Budget,
    calls: int,
    seed: int,
    surrogate: tuple[nn.Module, Gallery] | None = None,
) -> dict[str, Tensor]:
    """What one attack without gradients reaches on each query of a batch, on the CPU.

    Args:
        name: of the attack; transfer needs a surrogate.
        model: the model that is attacked.
        images: the queries.
        attacked: their places in the gallery, with their clean first results as targets.
        budget: radius and norm; steps and step size are those of the transfer attack.
        calls: images per query.
        seed: of everything random.
        surrogate: of the transfer attack, with its gallery.
    """
    if name != "transfer":
        result = run_black_box(name, model, images, attacked, budget, calls, seed)
    else:
        assert surrogate is not None
        result = run_transfer(*surrogate, model, images, attacked, budget)
    moved, places = embedded(model, result.images), (attacked.moving, attacked.target)
    values = {
        "calls": result.calls,
        "success": result.success,
        "attacked": result.attacked,
        "recall": ranking.first_result_is_match(attacked.gallery, moved, attacked.moving),
        "before": ranking.percentile_rank(attacked.gallery, attacked.clean, attacked.target_embedding, *places),
        "after": ranking.percentile_rank(attacked.gallery, moved, attacked.target_embedding, *places),
    }
    return {column: one.cpu() for column, one in values.items()}


def black_box_table(
    values: Mapping[BlackBoxAttack, Mapping[str, Tensor]], budget: Budget, calls: int, seconds: float
) -> Measurement:
    """The table of the attacks without gradients.

    Args:
        values: of all queries, by attack; see `black_box_values`.
        budget: radius and norm of the attacks.
        calls: images per query that they were allowed.
        seconds: that they took.
    """
    rows: dict[str, Figures] = {name: _figures(found) for name, found in values.items()}
    total = sum(int(found["calls"].sum()) for found in values.values())
    settings = {"epsilon": budget.epsilon, "norm": budget.norm, "calls": calls}
    return Measurement("black box", "Attacks without gradients", MEANING, rows, settings, total, seconds)


def _figures(values: Mapping[str, Tensor]) -> Figures:
    success, calls, attacked = (values[name] for name in ("success", "calls", "attacked"))
    return {
        "success %": mean(100 * success[attacked].double()),
        "median calls until success": median(calls[success]),
        "mean calls": mean(calls[attacked]),
        "R@1 before": mean(100 * attacked.double()),
        "R@1 after": mean(values["recall"]),
        "rank before %": mean(values["before"]),
        "rank after %": mean(values["after"]),
    }
