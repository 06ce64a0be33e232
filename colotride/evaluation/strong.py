"""The `strong` protocol: per query the worst that an ensemble of parameter-free attacks reaches.

For retrieval what AutoAttack is for classifiers. Every attack of the table runs several times: as `strict` runs it, and
with APGD, from a random point and from the worst point that the runs before have found, with another loss of the same
goal where there is one. A reported number is the worst value that any of them reached on a query, at any of its checkpoints:
none of them could lower it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from colotride.evaluation.apgd import AutoPGD, checkpoints
from colotride.evaluation.attacks import Attack, AttackBatch, Direction, Outcomes
from colotride.evaluation.gallery import checked
from colotride.pgd import Ball, FixedSteps, Objective, lengths, perturb
from colotride.pgd_settings import Budget
from colotride.randomness import hashed_uniform

Start = Literal["clean", "random", "transferred"]

PASSES = 2
"""Times the steps of `strict` that an ensemble spends."""


@dataclass(frozen=True)
class Member:
    """One run of APGD in an ensemble."""

    objective: int
    """0 is the attack's own loss, others are `Attack.other_objectives`."""
    start: Start
    steps: int
    fixed: bool = False
    """PGD with the step size of `strict`, instead of APGD."""


@dataclass(frozen=True)
class StrongOutcomes:
    """What an ensemble reached on a batch."""

    worst: Outcomes
    trace: dict[str, Float[Tensor, "batch passes"]]
    """Of each number what it would have been after fewer passes, at `trace_steps`."""
    strict: Outcomes
    """What the first member alone reached at its end: the attack of `strict`."""


def ensemble(losses: int, steps: int) -> list[Member]:
    """The runs of an attack.

    Half of the passes for the attack of `strict`, with as many steps as there, so that no query is attacked less and
    the gap is to the same numbers. A quarter for APGD from a random point on the other side of the ball, a quarter for APGD
    from the worst point so far; both with the attack's other loss, where it has one.

    Args:
        losses: how many the attack has.
        steps: of `strict`; the ensemble spends `PASSES` times as many.
    """
    left = (PASSES - 1) * steps
    return [
        Member(0, "clean", steps, fixed=True),
        Member(1 % losses, "random", max(1, left // 2)),
        Member(1 % losses, "transferred", max(1, left - left // 2)),
    ]


def trace_steps(steps: int) -> list[int]:
    """The numbers of passes at which an ensemble notes what it has reached; the same for any number of losses."""
    found, done = [], 0
    for member in ensemble(1, steps):
        found += [done + each for each in (*checkpoints(member.steps), member.steps)]
        done += member.steps
    return found


def run_ensemble(
    attack: Attack,
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    attacked: AttackBatch,
    budget: Budget,
    seed: int,
) -> StrongOutcomes:
    """Attack a batch with every member, and report of each query the worst.

    Args:
        attack: whose losses, numbers and directions count.
        model: maps pixels in [0, 1] to unit vectors.
        images: the moving images.
        attacked: their places and their targets.
        budget: radius, norm and steps of `strict`.
        seed: of the random starts; those of an image depend on nothing else but its place in the gallery.

    Raises:
        ModelError: unusable embeddings of perturbed images.
    """
    objectives = (attack.objective(attacked), *attack.other_objectives(attacked))
    # The clean image is in the ball too.
    worst = _Worst(attack, attacked)
    for number, member in enumerate(ensemble(len(objectives), budget.steps)):
        objective = objectives[member.objective]
        start = None
        if member.start == "random":
            # Around the mirror image of where the first member ended: noise alone hardly moves an embedding, and would
            # lead where the clean image led. Where a hidden gradient left that one still, the start is just random.
            start = random_start(images, attacked.moving, budget, seed + number) + images - worst.first_end
        elif member.start == "transferred":
            start = worst.best_under(objective)
        worst.begin(member)
        rule = partial(_StrictSteps if member.fixed else AutoPGD, observe=worst.observe)
        worst.end(perturb(model, images, objective, replace(budget, steps=member.steps), start, rule=rule))
    trace = {name: torch.stack(values, dim=1) for name, values in worst.trace.items()}
    return StrongOutcomes(worst.outcomes, trace, worst.ends[0])


def worse(direction: Direction, one: Tensor, other: Tensor) -> Tensor:
    """Of two values of a number the one that the attack wants more."""
    return torch.maximum(one, other) if direction == "raised" else torch.minimum(one, other)


def random_start(
    images: Float[Tensor, "batch channels height width"], places: Tensor, budget: Budget, seed: int
) -> Float[Tensor, "batch channels height width"]:
    """A random point of each image's ball: uniform in the cube (linf), or of length epsilon in any direction (l2)."""
    noise = 2 * hashed_uniform(seed, places, images[0].numel()).to(images.dtype).view_as(images) - 1
    if budget.norm == "l2":
        noise = torch.erfinv(noise.clamp(-1 + 1e-6, 1 - 1e-6))
        noise = noise / lengths(noise)
    return images + budget.epsilon * noise


class _StrictSteps(FixedSteps):
    """The steps of `strict`, observed at the checkpoints of APGD."""

    def __init__(self, ball: Ball, budget: Budget, observe: Callable[[int, Tensor], None]) -> None:
        super().__init__(ball, budget.step_size)
        self._observe, self._checkpoints, self._steps = observe, set(checkpoints(budget.steps)), budget.steps
        self._passes = 0

    def step(self, moving: Tensor, embeddings: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        if self._passes in self._checkpoints:
            self._observe(self._passes, embeddings)
        self._passes += 1
        return super().step(moving, embeddings, losses, gradient)

    def result(self, moving: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        self._observe(self._steps, evaluate(moving)[0])
        return moving


class _Worst:
    """What the members of an ensemble have reached so far on each query of a batch."""

    def __init__(self, attack: Attack, attacked: AttackBatch) -> None:
        self._attack, self._attacked = attack, attacked
        self.outcomes = attack.measure(attacked, attacked.clean)
        self.trace: dict[str, list[Tensor]] = {name: [] for name in self.outcomes}
        self.ends: list[Outcomes] = []
        self._ended: list[tuple[Tensor, Tensor]] = []
        self._last = attacked.clean
        self._expected = 0

    def begin(self, member: Member) -> None:
        self._expected += len(checkpoints(member.steps)) + 1

    def observe(self, steps: int, embeddings: Tensor) -> None:
        """Note the best points of a member at a checkpoint."""
        self._last = checked(embeddings, len(embeddings), embeddings.device)
        for name, found in self._attack.measure(self._attacked, self._last).items():
            self.outcomes[name] = worse(self._attack.numbers[name], self.outcomes[name], found)
        self._note()

    def end(self, images: Tensor) -> None:
        """Note where a member ended; one that ended early reached at all its checkpoints what it reached at the end."""
        self._ended.append((images, self._last))
        self.ends.append(self._attack.measure(self._attacked, self._last))
        while len(next(iter(self.trace.values()))) < self._expected:
            self._note()

    @property
    def first_end(self) -> Tensor:
        """The images where the first member ended."""
        return self._ended[0][0]

    def best_under(self, objective: Objective) -> Tensor:
        """Of every query the end of the member that is best under an objective."""
        with torch.no_grad():
            losses = torch.stack([objective(embeddings) for _, embeddings in self._ended])
        images = torch.stack([images for images, _ in self._ended])
        return images[losses.argmin(dim=0), torch.arange(images.shape[1], device=images.device)]

    def _note(self) -> None:
        for name, values in self.trace.items():
            values.append(self.outcomes[name])
