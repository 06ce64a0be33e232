"""One call that evaluates a model: benign metrics, every attack, ERS and ARS."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from colotride.data.augmentation import evaluation_view
from colotride.data.base import ImageSet
from colotride.evaluation.attacks import Attack, Victims, attacks
from colotride.evaluation.gallery import Gallery, embed_gallery, in_batches
from colotride.evaluation.retrieval import nmi, retrieval_scores
from colotride.evaluation.scores import (
    adversarial_resistance_score,
    columns,
    empirical_robustness_score,
    resistances,
)
from colotride.evaluation.settings import EvaluationSettings
from colotride.pgd import Budget
from colotride.randomness import derive_seed, generator

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole evaluation is behind it."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation; percentages and ranks are in 0..100."""

    protocol: str
    images: int
    """Size of the gallery."""
    queries: int
    """Images attacked by each attack."""
    steps: int
    epsilon: float
    step_size: float
    seed: int
    benign: dict[str, float]
    """R@k, mAP, mAP@R, NMI over the whole gallery."""
    attacked: dict[str, float]
    """The ten numbers of Table 1, after the attacks."""
    resistance: dict[str, float]
    """The eight numbers of Table 2."""
    ERS: float
    ARS: float
    seconds: float
    per_query: "dict[str, dict[str, Tensor]]" = field(repr=False, compare=False)
    """Values of every attacked image: by attack number, its `query`, `before` and `after`; on the CPU."""

    def scores(self) -> dict[str, float]:
        """Every score under its name in the paper's tables; resistances are named `ARS CA+`, ..."""
        named = {f"ARS {name}": value for name, value in self.resistance.items()}
        return {**self.benign, **self.attacked, **named, "ERS": self.ERS, "ARS": self.ARS}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the values of single queries."""
        plain = asdict(self)
        del plain["per_query"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Evaluation":
        """The result that `to_dict` wrote."""
        return cls(**plain, per_query={})


def evaluate(
    model: nn.Module,
    images: ImageSet,
    settings: EvaluationSettings,
    *,
    image_size: int,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model on a gallery whose images are also the queries.

    The gallery is embedded once; the attacked images and all targets are drawn before the attacks, from the seed
    alone, so that two models with one seed face the same queries.

    Args:
        model: maps pixels in [0, 1] to unit vectors; held in evaluation mode meanwhile, and put back.
        images: the gallery.
        settings: protocol, budgets, size of the perturbation.
        image_size: side of the central crop.
        seed: of the queries, the targets and the clustering.
        device: where the model is.
        progress: told of every step.

    Raises:
        ModelError: unusable embeddings.
        DataError: a class with a single image, a gallery too small to rank, or an image that cannot be read.
    """
    started = time.perf_counter()
    report = progress or (lambda what, share: None)
    gallery = embed_gallery(
        model,
        images,
        image_size=image_size,
        batch_size=settings.batch_size,
        device=device,
        progress=lambda share: report("gallery", 0.05 * share),
    )
    benign = retrieval_scores(gallery, torch.arange(len(gallery)), settings.recall_at)
    benign["NMI"] = nmi(gallery, derive_seed(seed, "evaluation", "k-means"))
    queries = draw_queries(len(images), settings.queries, seed)
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    listed = attacks(settings.protocol)
    for number, attack in enumerate(listed):

        def step(share: float, attack: Attack = attack, number: int = number) -> None:
            report(attack.name, 0.05 + 0.95 * (number + share) / len(listed))

        was, now = run_attack(
            attack, model, images, gallery, queries, settings, image_size=image_size, seed=seed, progress=step
        )
        before |= was
        after |= now
    resisted = resistances(before, after)
    attacked = columns(after)
    return Evaluation(
        protocol=settings.protocol,
        images=len(images),
        queries=len(queries),
        steps=settings.steps,
        epsilon=settings.epsilon,
        step_size=settings.step_size,
        seed=seed,
        benign=benign,
        attacked=attacked,
        resistance=resisted,
        ERS=empirical_robustness_score(attacked),
        ARS=adversarial_resistance_score(resisted),
        seconds=time.perf_counter() - started,
        per_query={name: {"query": queries, "before": before[name], "after": after[name]} for name in after},
    )


def draw_queries(images: int, budget: int | None, seed: int) -> Int[Tensor, "queries"]:
    """Which images are attacked: all of them, or as many as the budget says, drawn without repetition, in order."""
    if budget is None or budget >= images:
        return torch.arange(images)
    return torch.randperm(images, generator=generator(seed, "evaluation", "queries"))[:budget].sort().values


def run_attack(
    attack: Attack,
    model: nn.Module,
    images: ImageSet,
    gallery: Gallery,
    queries: Int[Tensor, "queries"],
    settings: EvaluationSettings,
    *,
    image_size: int,
    seed: int,
    progress: Callable[[float], None],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Attack every query and measure it before and after.

    Returns:
        Two dictionaries from the names of the attack's numbers to one value per query, on the CPU.
    """
    device = gallery.embeddings.device
    target = attack.draw(gallery, queries.to(device), generator(seed, "evaluation", attack.name))
    budget = Budget(settings.epsilon, settings.step_size, settings.steps)
    before, after = [], []
    done = 0
    for moving, aimed in zip(
        in_batches(queries, settings.batch_size), in_batches(target, settings.batch_size), strict=True
    ):
        view = evaluation_view(images.pixels(moving).to(device), image_size)
        victims = Victims(gallery, moving.to(device), aimed)
        before.append(attack.measure(victims, gallery.embeddings[victims.moving]))
        after.append(attack.strike(attack, model, view, victims, budget))
        done += len(moving)
        progress(done / len(queries))
    return _joined(before), _joined(after)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
