"""Whether the attacks can be trusted: checks that a model which only hides its gradients does not pass.

A defense that makes gradients useless looks robust to every attack that follows them. Each check compares an attack
with something that it must beat, or must not be beaten by (Carlini et al., "On evaluating adversarial robustness";
the automatic checks of AutoAttack).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from colotride.evaluation import model_checks, ranking
from colotride.evaluation.sanity_context import TOLERANCE, Check, SanityContext, Verdict, sanity_context
from colotride.pgd import Ball, frozen
from colotride.pgd_settings import Budget

__all__ = ["Check", "SanityContext", "sanity_checks", "sanity_context"]

RESTARTS, NES_STEPS, NES_DRAWS, NES_SPREAD = 3, 16, 32, 0.01
"""Random restarts; steps, antithetic pairs per step and standard deviation (in pixel units) of the NES attack."""

LARGE_EPSILON, LARGE_STEPS, BROKEN = 0.5, 64, 0.1
"""An attack that may move every pixel by half its range (l2: as long a change) must leave at most this share of R@1
above chance."""


def sanity_checks(
    context: SanityContext, surrogate: nn.Module, seed: int, progress: Callable[[str], None] | None = None
) -> list[Check]:
    """Run every check.

    Args:
        context: the queries and the budget of the evaluation.
        surrogate: another model on the same images, for the transfer attack.
        seed: of the random starts.
        progress: called with the name of each check before it runs.
    """
    checks = {
        "more steps do not weaken": lambda: more_steps(context, seed),
        "epsilon 0 changes nothing": lambda: no_room(context, seed),
        "a large epsilon breaks the model": lambda: much_room(context, seed),
        "random restarts gain little": lambda: restarts(context, seed),
        "transfer does not beat white box": lambda: transfer(context, surrogate, seed),
        "gradient-free does not beat white box": lambda: gradient_free(context, seed),
        "gradients are not zero": lambda: gradients(context, seed),
        "gradients do not underflow": lambda: model_checks.gradient_underflow(context, seed),
        "outputs are not random": lambda: model_checks.randomised_output(context),
        "an image does not depend on its batch": lambda: model_checks.batch_dependence(context),
        "the embedding's scale does not matter": lambda: model_checks.scale_invariance(context, seed),
        "double precision agrees": lambda: model_checks.precision(context),
    }
    found = []
    for name, check in checks.items():
        if progress:
            progress(name)
        passed, figures, meaning = check()
        found.append(Check(name, passed, figures, meaning))
    return found


def more_steps(context: SanityContext, seed: int) -> Verdict:
    """The mean shift after 1/4, 1/2, all and twice the steps must not fall."""
    steps = sorted({max(1, round(context.budget.steps * share)) for share in (0.25, 0.5, 1, 2)})
    shifts = {f"{count} steps": _mean(context, replace(context.budget, steps=count), seed) for count in steps}
    ordered = list(shifts.values())
    kept = all(later >= (1 - TOLERANCE) * earlier for earlier, later in itertools.pairwise(ordered))
    return kept, shifts, "a longer attack does worse: its gradients mislead it"


def no_room(context: SanityContext, seed: int) -> Verdict:
    """With epsilon 0 the images, and so the embeddings, are the same."""
    moved = context.attacked(replace(context.budget, epsilon=0.0), _draw(seed))
    worst = float((moved - context.images).abs().max())
    return worst == 0, {"largest change of a pixel": worst}, "the attack does not keep to its ball"


def much_room(context: SanityContext, seed: int) -> Verdict:
    """An attack with a large epsilon must bring recall down to about chance."""
    pixels = context.images[0].numel() if context.budget.norm == "l2" else 1
    epsilon = LARGE_EPSILON * math.sqrt(pixels)
    large = Budget(epsilon, epsilon / 16, LARGE_STEPS, context.budget.norm)
    before, after = context.recall(context.images), context.recall(context.attacked(large, _draw(seed)))
    same, _ = ranking.same_and_other(context.gallery.labels, context.queries)
    chance = 100 * float(same.double().mean())
    figures = {"R@1 before": before, f"R@1 at epsilon {epsilon:g}": after, "chance": chance}
    return after <= chance + BROKEN * before, figures, "no model resists that much: the attack is stuck"


def restarts(context: SanityContext, seed: int) -> Verdict:
    """The best of several random starts must not do much better than one."""
    random = _draw(seed)
    shifts = torch.stack([context.shift(context.attacked(context.budget, random)) for _ in range(RESTARTS)])
    one, best = float(shifts[0].mean()), float(shifts.amax(dim=0).mean())
    figures = {"one start": one, f"best of {RESTARTS}": best}
    return best <= one + max(2 * TOLERANCE * one, 0.01), figures, "one start is far from the worst case"


def transfer(context: SanityContext, surrogate: nn.Module, seed: int) -> Verdict:
    """Images perturbed through another model's gradients must move the embedding less."""
    white = _mean(context, context.budget, seed)
    black = float(context.shift(context.attacked(context.budget, _draw(seed), surrogate)).mean())
    return _not_beaten(white, black), {"white box": white, "transfer": black}, "another model's gradients do better"


def gradient_free(context: SanityContext, seed: int) -> Verdict:
    """An attack that only sees embeddings (NES, Ilyas et al., 2018) must move them less, with the steps it has."""
    random, budget = _draw(seed), replace(context.budget, steps=NES_STEPS)
    ball = Ball.around(context.images, budget.epsilon, budget.norm)
    moved, step = context.images, max(budget.step_size, 2 * budget.epsilon / NES_STEPS)
    for _ in range(NES_STEPS):
        estimate = torch.zeros_like(moved)
        for _ in range(NES_DRAWS):
            noise = torch.randn(moved.shape, generator=random).to(moved.device)
            ahead, behind = (context.shift(moved + sign * NES_SPREAD * noise) for sign in (1, -1))
            estimate += (ahead - behind)[:, None, None, None] * noise
        moved = ball.project_(moved + step * ball.direction_(estimate))
    white, free = _mean(context, context.budget, seed), float(context.shift(moved).mean())
    return _not_beaten(white, free), {"white box": white, "NES": free}, "an attack without gradients does better"


def gradients(context: SanityContext, seed: int) -> Verdict:
    """The share of the queries whose gradient at a random start is exactly 0."""
    start = context.random_start(context.budget, _draw(seed)).clamp(0, 1).requires_grad_(True)
    with frozen(context.model) as embed, torch.enable_grad():
        (gradient,) = torch.autograd.grad(context.objective()(embed(start)), start, allow_unused=True)
    still = torch.ones(len(start)) if gradient is None else (gradient.flatten(1).abs().amax(dim=1) == 0).float()
    share = float(still.mean())
    return share == 0, {"share of queries without gradient": share}, "the attack does not know where to go"


def _mean(context: SanityContext, budget: Budget, seed: int) -> float:
    return float(context.shift(context.attacked(budget, _draw(seed))).mean())


def _not_beaten(white: float, rival: float) -> bool:
    return rival <= (1 + TOLERANCE) * white


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
