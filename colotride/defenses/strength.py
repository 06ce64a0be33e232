"""How strong the perturbation of a defense still is: the test for catastrophic overfitting."""

from typing import Any

import torch
from torch import nn

from colotride.defenses.step import TripletDefense, chosen, perturb_parts
from colotride.defenses.triplets import Batch, StepInfo, clean_diagnostics, mine_triplets
from colotride.pgd import frozen
from colotride.pgd_settings import Budget

REFERENCE_STEPS = 16
"""Steps with which a perturbation is compared, each an eighth of epsilon long."""

NOTHING_REACHED = 1e-4
"""Fall of an objective that is as good as none."""


def perturbation_strength(
    defense: TripletDefense[Any], model: nn.Module, batch: Batch, info: StepInfo, generator: torch.Generator
) -> float:
    """How much of what 16 small steps reach on a batch the perturbation of the settings reaches at full strength.

    Both have the same triplets and the same objective. A small share is the sign of catastrophic overfitting (Wong et
    al., 2020): the model withstands the steps that it is trained with, and no others.

    Args:
        defense: whose perturbation.
        model: the embedding model; its mode and weights stay as they are.
        batch: anchor-positive pairs.
        info: decides phases, and how often the steps were refined.
        generator: CPU generator.

    Returns:
        The fall of the objective as a share of its fall under the small steps; 1 where those reach nothing either, and
        above 1 where the cheaper perturbation reaches more.
    """
    context, moving = defense.context, defense.perturbed_parts(info)
    triplets = mine_triplets(model, batch, context, defense.semi_hard_margin(info), generator)
    diagnostics = clean_diagnostics(triplets, context.collapseness)
    perturbation = defense.perturbation(triplets, diagnostics, info, generator)
    objective = perturbation.objective
    if objective is None:
        return 1.0
    own = context.pgd.full.refined(info.refinement)
    reference = Budget(own.epsilon, own.epsilon / 8, REFERENCE_STEPS, own.norm)
    perturbed = [
        triplets.images,
        perturb_parts(model, triplets, moving, perturbation, own, context.pgd.random_start, generator),
        perturb_parts(model, triplets, moving, perturbation, reference, 0.0, generator),
    ]
    with frozen(model) as embed, torch.no_grad():
        start, reached, reachable = (
            float(objective(embed(torch.cat(chosen(parts, moving)))).sum()) for parts in perturbed
        )
    possible = start - reachable
    return 1.0 if possible <= NOTHING_REACHED else (start - reached) / possible
