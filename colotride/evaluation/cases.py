"""Real cases to look at: a query, what was added to it, and what it finds before and after."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride.data.augmentation import evaluation_view
from colotride.data.base import ImageSet
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.parts import Plan, attack_named
from colotride.evaluation.retrieval import chunks
from colotride.geometry import distance_matrix
from colotride.pgd import Budget, frozen, perturb

RESULTS = 5


@dataclass(frozen=True)
class Result:
    """One image in a result list."""

    pixels: Float[Tensor, "channels size size"]
    label: int
    right: bool


@dataclass(frozen=True)
class Case:
    """One query under the embedding-shift attack."""

    query: int
    label: int
    pixels: Float[Tensor, "channels size size"]
    perturbation: Float[Tensor, "channels size size"]
    """Amplified so that epsilon fills the range: 0.5 is no change, 0 and 1 are the ends of the ball."""
    before: list[Result]
    after: list[Result]
    shift: float


def find_cases(model: nn.Module, images: ImageSet, plan: Plan, count: int) -> list[Case]:
    """Attack some of the queries, evenly chosen, with ES, and look up their first results.

    Args:
        model: on the gallery's device.
        images: of the gallery.
        plan: of the evaluation.
        count: how many.
    """
    gallery, settings = plan.gallery, plan.settings
    device = gallery.embeddings.device
    chosen = torch.linspace(0, len(plan.queries) - 1, min(count, len(plan.queries))).round().long()
    queries = plan.queries[chosen]
    clean = evaluation_view(images.pixels(queries).to(device), plan.image_size)
    attacked = AttackBatch(gallery, queries.to(device), queries.to(device))
    objective = attack_named("ES", settings).objective(attacked)
    moved = perturb(model, clean, objective, Budget(settings.epsilon, settings.step_size, settings.steps))
    with frozen(model) as embed, torch.no_grad():
        perturbed = embed(moved)
    start = gallery.embeddings[queries.to(device)]
    before, after = (_first_results(gallery, one, queries) for one in (start, perturbed))
    shifts = (perturbed - start).norm(dim=1)
    wanted = torch.cat([before, after]).flatten().unique()
    views = evaluation_view(images.pixels(wanted.cpu()).to(device), plan.image_size).cpu()
    shown = dict(zip(wanted.tolist(), views, strict=True))

    def results(row: Tensor, label: int) -> list[Result]:
        labels = gallery.labels[row].tolist()
        return [Result(shown[index], found, found == label) for index, found in zip(row.tolist(), labels, strict=True)]

    cases = []
    scale = max(settings.epsilon, 1e-6)
    for number, query in enumerate(queries.tolist()):
        label = int(gallery.labels[query])
        amplified = ((moved[number] - clean[number]) / (2 * scale) + 0.5).clamp(0, 1).cpu()
        cases.append(
            Case(
                query,
                label,
                clean[number].cpu(),
                amplified,
                results(before[number], label),
                results(after[number], label),
                float(shifts[number]),
            )
        )
    return cases


def _first_results(gallery: Gallery, embeddings: Tensor, queries: Int[Tensor, "queries"]) -> Tensor:
    rows = queries.to(embeddings.device)
    found = []
    for chunk in chunks(torch.arange(len(queries)), len(gallery)):
        to_gallery = distance_matrix(embeddings[chunk], gallery.embeddings)
        to_gallery[torch.arange(len(chunk)), rows[chunk]] = torch.inf
        found.append(to_gallery.topk(min(RESULTS, len(gallery) - 1), largest=False).indices)
    return torch.cat(found)
