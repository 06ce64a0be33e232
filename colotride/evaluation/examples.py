"""Examples to look at: a query, what an attack adds to it, and what it finds before and after."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride.data.base import ImageSet, class_name
from colotride.evaluation.attacks import AttackBatch, attack_named
from colotride.evaluation.chunks import EvaluationPlan
from colotride.evaluation.gallery import Gallery, query_blocks, read_views
from colotride.pgd import frozen, perturb

RESULTS = 5


@dataclass(frozen=True)
class RetrievedImage:
    """One image in a list of results."""

    pixels: Float[Tensor, "channels size size"]
    label: int
    class_name: str
    correct: bool
    """Whether it is of the query's class."""


@dataclass(frozen=True)
class RetrievalExample:
    """One query under the embedding-shift attack."""

    query: int
    """Its place in the gallery."""
    label: int
    class_name: str
    pixels: Float[Tensor, "channels size size"]
    perturbation: Float[Tensor, "channels size size"]
    """Amplified so that epsilon (linf) or the largest change of a pixel (l2) fills the range; 0.5 is no change."""
    before: list[RetrievedImage]
    after: list[RetrievedImage]
    shift: float
    """Distance between the embeddings before and after the attack, in [0, 2]."""


def retrieval_examples(model: nn.Module, images: ImageSet, plan: EvaluationPlan, count: int) -> list[RetrievalExample]:
    """Attack some of the queries, evenly chosen, with ES, and look up their first results.

    Args:
        model: on the gallery's device.
        images: of the gallery.
        plan: of the evaluation.
        count: how many; all queries where there are fewer.
    """
    gallery, settings = plan.gallery, plan.settings
    device = gallery.embeddings.device
    chosen = torch.linspace(0, len(plan.queries) - 1, min(count, len(plan.queries))).round().long()
    queries = plan.queries[chosen]
    clean = read_views(images, queries, plan.image_size, model, device)
    batch = AttackBatch(gallery, queries.to(device), queries.to(device))
    objective = attack_named("ES", settings.protocol).objective(batch)
    moved = perturb(model, clean, objective, settings.budget(settings.epsilon))
    with frozen(model) as embed, torch.no_grad():
        perturbed = embed(moved)
    start = gallery.embeddings[queries.to(device)]
    before, after = (first_results(gallery, one, queries, RESULTS) for one in (start, perturbed))
    shifts = (perturbed - start).norm(dim=1)
    wanted = torch.cat([before, after]).flatten().unique()
    views = read_views(images, wanted.cpu(), plan.image_size, model, device).cpu()
    shown = dict(zip(wanted.tolist(), views, strict=True))

    def results(row: Tensor, label: int) -> list[RetrievedImage]:
        labels = gallery.labels[row].tolist()
        return [
            RetrievedImage(shown[index], found, class_name(images, found), found == label)
            for index, found in zip(row.tolist(), labels, strict=True)
        ]

    examples = []
    for number, query in enumerate(queries.tolist()):
        label = int(gallery.labels[query])
        change = moved[number] - clean[number]
        # In l2 the largest change of a pixel differs from image to image.
        largest = settings.epsilon if settings.norm == "linf" else float(change.abs().max())
        amplified = visible_change(change, largest).cpu()
        examples.append(
            RetrievalExample(
                query,
                label,
                class_name(images, label),
                clean[number].cpu(),
                amplified,
                results(before[number], label),
                results(after[number], label),
                float(shifts[number]),
            )
        )
    return examples


def first_results(
    gallery: Gallery, embeddings: Float[Tensor, "queries dim"], queries: Int[Tensor, "queries"], count: int
) -> Int[Tensor, "queries results"]:
    """Places of the images that each query finds first, the nearest first; the query itself is left out.

    Args:
        gallery: that is searched.
        embeddings: of the queries, clean or perturbed.
        queries: their own places in the gallery.
        count: how many; a smaller gallery returns fewer.
    """
    rows = queries.to(embeddings.device)
    found = []
    for chunk in query_blocks(torch.arange(len(queries)), len(gallery)):
        to_gallery = gallery.exact.squares(gallery.exact.place(embeddings[chunk]))
        to_gallery[torch.arange(len(chunk)), rows[chunk].to(to_gallery.device)] = torch.inf
        found.append(to_gallery.topk(min(count, len(gallery) - 1), largest=False).indices)
    return torch.cat(found)


def visible_change(change: Tensor, largest: float) -> Tensor:
    """A perturbation as pixels in [0, 1]: the largest change fills the range, and 0.5 is no change."""
    return (change / (2 * max(largest, 1e-6)) + 0.5).clamp(0, 1)
