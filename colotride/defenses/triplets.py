"""What every defense shares: the batch, its clean triplets, the diagnostics, and the interface."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from colotride import geometry
from colotride.distributed.shards import SINGLE_PROCESS, ProcessGroup, Shard
from colotride.geometry import Metric, WeightGradient, Weighting
from colotride.losses import LossName
from colotride.mining import MinerName, mine
from colotride.models import differs_in_training
from colotride.pgd import frozen
from colotride.pgd_settings import PGDSettings
from colotride.registry import DEFENSES
from colotride.settings import Settings


class CollapsenessSettings(Settings):
    """How collapseness is measured (Eq. 5-7): COLO decides by it, every other defense reports it."""

    attention_factor: float = Field(default=10.0, ge=0)
    """lambda of Eq. 6-7; 0 makes collapseness the mean hardness."""
    weighting: Weighting = "near"
    """Which distances get the attention: near ones (the paper's words), far ones (the released code), or hard triplets."""
    weight_gradient: WeightGradient = "detached"
    """Whether the gradient of an attack flows through the weights (the released code) or not."""

    def __call__(
        self, anchor_positive: Float[Tensor, "triplets"], anchor_negative: Float[Tensor, "triplets"]
    ) -> Float[Tensor, ""]:
        """Collapseness C of a batch; see `geometry.collapseness`."""
        return geometry.collapseness(
            anchor_positive, anchor_negative, self.attention_factor, self.weighting, self.weight_gradient
        )


class DefenseSettings(Settings):
    """Settings of one defense; subclasses give `name` the type `Literal[...]` and add their fields."""

    name: Annotated[str, AfterValidator(DEFENSES.check)]
    """Which defense."""
    recommended: ClassVar[dict[str, Any]] = {}
    """Settings of the whole run, by dotted path, with which its authors use the defense."""


@dataclass(frozen=True)
class Batch:
    """Anchor-positive pairs as they come from the sampler (SPC-2): images in [0, 1] and the class of each pair.

    A triplet's negative may be any image of the batch. A process of a group holds all of them, or its own pairs and a
    way to read others.
    """

    anchor: Float[Tensor, "pairs channels height width"]
    positive: Float[Tensor, "pairs channels height width"]
    labels: Int[Tensor, "all_pairs"]
    """Of the whole batch, on the CPU."""
    group: ProcessGroup = SINGLE_PROCESS
    """The processes that divide the passes through the network."""
    read: Callable[[Int[Tensor, "places"]], Float[Tensor, "places channels height width"]] | None = None
    """Where `anchor` and `positive` are those of this process alone: gives the images at places in the whole batch, of
    which the anchors come first, then the positives."""

    @property
    def shard(self) -> Shard:
        """How the batch is divided."""
        return Shard(len(self.labels), self.group)

    def own_pairs(self) -> tuple[Tensor, Tensor]:
        """Anchors and positives of this process."""
        if self.read is not None:
            return self.anchor, self.positive
        own = self.shard.own
        return self.anchor[own], self.positive[own]

    def images_at(self, places: Int[Tensor, "places"]) -> Float[Tensor, "places channels height width"]:
        """Images of the whole batch: anchors are at 0 to pairs - 1, positives from there on."""
        if self.read is not None:
            return self.read(places.cpu())
        return torch.cat([self.anchor, self.positive])[places]

    def first_pairs(self, count: int) -> "Batch":
        """The first pairs of every process as a batch of their own; the whole where one of them has fewer."""
        counts = self.shard.counts
        if min(counts) <= count:
            return self
        starts = torch.tensor([0, *counts[:-1]]).cumsum(0)
        pairs = (starts[:, None] + torch.arange(count)).flatten()
        places, read = torch.cat([pairs, len(self.labels) + pairs]), self.read
        if read is None:
            return Batch(self.anchor[pairs], self.positive[pairs], self.labels[pairs], self.group)
        some = partial(_read_some, read, places)
        return Batch(self.anchor[:count], self.positive[:count], self.labels[pairs], self.group, some)


def _read_some(read: Callable[[Tensor], Tensor], places: Tensor, asked: Tensor) -> Tensor:
    return read(places[asked])


@dataclass(frozen=True)
class StepInfo:
    """Position of a batch in its run."""

    epoch: int
    """Counted from 0."""
    epochs: int
    """Of the whole run."""
    step: int
    """Batches trained before this one, over all epochs."""
    refinement: int = 0
    """How often the steps of the perturbation were doubled and their size halved; see `PGDSettings.adaptive_steps`."""


@dataclass(frozen=True)
class DefenseContext:
    """What every defense needs, whatever it perturbs."""

    pgd: PGDSettings
    margin: float
    """Of the triplet loss and, to start with, of the semi-hard margin."""
    miner: MinerName
    collapseness: CollapsenessSettings
    metric: Metric = "euclidean"
    """Distance in losses, objectives, mining and diagnostics."""
    loss: LossName = "triplet"
    """The base loss that is minimised on the perturbed triplets."""
    clean_weight: float = 0.0
    """Share of the base loss on the clean triplets, in [0, 1)."""
    weight_perturbation: float = 0.0
    """How far weights are moved to raise the loss that trains them, as a share of their length; 0 leaves them."""


class Parts(NamedTuple):
    """Anchors, positives and negatives: images or embeddings, one row per triplet."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Triplets:
    """Clean triplets (A, P, N): their images, and their embeddings by the model in evaluation mode.

    Images and embeddings are those of this process's share ("own"); distances are always those of the whole batch
    ("triplets"). A process that trains alone has the whole batch.
    """

    anchor: Float[Tensor, "own channels height width"]
    positive: Float[Tensor, "own channels height width"]
    negative: Float[Tensor, "own channels height width"]
    anchor_embedding: Float[Tensor, "own dim"]
    positive_embedding: Float[Tensor, "own dim"]
    negative_embedding: Float[Tensor, "own dim"]
    unqualified: Float[Tensor, ""]
    """Share of the anchors for which the miner found no negative that met its condition."""
    labels: Int[Tensor, "images"]
    """Classes of all anchors, then all positives, then all negatives of the batch, on the device."""
    shard: Shard
    metric: Metric = "euclidean"
    trainable: Parts | None = None
    """The same embeddings with the graph that training needs, where it needs no extra pass."""

    @property
    def images(self) -> Parts:
        """The clean images, part by part."""
        return Parts(self.anchor, self.positive, self.negative)

    def distances(self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"]) -> Float[Tensor, "all_rows"]:
        """Distances of matching rows in the metric of the training, of the whole batch: see `Shard.join`.

        Args:
            a: embeddings of own images, a whole number per triplet.
            b: what they are compared with.
        """
        return self.shard.join(geometry.distances(a, b, self.metric))

    def offset_distances(self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"]) -> Float[Tensor, "all_rows"]:
        """The same with a gradient where a row of `a` equals that of `b`: see `geometry.offset_distances`."""
        return self.shard.join(geometry.offset_distances(a, b, self.metric))

    @cached_property
    def anchor_positive(self) -> Float[Tensor, "triplets"]:
        """Clean d(A, P)."""
        return self.distances(self.anchor_embedding, self.positive_embedding)

    @cached_property
    def anchor_negative(self) -> Float[Tensor, "triplets"]:
        """Clean d(A, N)."""
        return self.distances(self.anchor_embedding, self.negative_embedding)


Diagnostics = dict[str, Tensor]
"""Named scalars of one batch, left on the device; the trainer averages them over an epoch."""


@runtime_checkable
class Defense(Protocol):
    """Turns a batch into the loss that training minimises, and into diagnostics."""

    def batch_loss(
        self, model: nn.Module, batch: Batch, info: StepInfo, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Diagnostics]:
        """Mine, perturb, and compute the loss with its graph.

        Args:
            model: the embedding model, in training mode, in which it is again on return.
            batch: anchor-positive pairs.
            info: decides ramps and phases.
            generator: CPU generator of this batch.

        Raises:
            DataError: an anchor of the batch has no negative.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next batch to be the same."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


def mine_triplets(
    model: nn.Module,
    batch: Batch,
    context: DefenseContext,
    margin: float,
    generator: torch.Generator,
    *,
    trains_clean: bool = False,
) -> Triplets:
    """Embed a clean batch once, in evaluation mode, and make its triplets from its own images.

    Each process embeds its share; all mine the same triplets from the embeddings of all.

    Args:
        model: the embedding model.
        batch: anchor-positive pairs.
        context: miner and metric.
        margin: the semi-hard margin of this epoch.
        generator: CPU generator of this batch.
        trains_clean: whether the clean images are trained on. The one pass then keeps its graph, provided that the
            model gives the same embeddings in training mode as in evaluation mode.
    """
    shard = batch.shard
    own, (own_anchor, own_positive) = shard.own, batch.own_pairs()
    own_images = torch.cat([own_anchor, own_positive])
    graph = None
    if trains_clean and not differs_in_training(model):
        graph = torch.cat([shard.collect(half) for half in model(own_images).chunk(2)])
        embeddings = graph.detach()
    else:
        with frozen(model) as embed, torch.no_grad():
            embeddings = torch.cat([shard.collect(half) for half in embed(own_images).chunk(2)])
    anchor, positive = embeddings.chunk(2)
    mined = mine(context.miner, anchor, positive, batch.labels, margin, generator, context.metric)
    labels = batch.labels.to(own_images.device)
    positives, negatives = mined.positives[own], mined.negatives[own]
    positive, negative = batch.images_at(torch.cat([positives, negatives])).chunk(2)
    return Triplets(
        anchor=own_anchor,
        positive=positive,
        negative=negative,
        anchor_embedding=anchor[own],
        positive_embedding=embeddings[positives],
        negative_embedding=embeddings[negatives],
        unqualified=mined.unqualified,
        labels=torch.cat([labels, labels, labels.repeat(2)[mined.negatives]]),
        shard=shard,
        metric=context.metric,
        trainable=None if graph is None else Parts(graph[own], graph[positives], graph[negatives]),
    )


def clean_diagnostics(triplets: Triplets, collapseness: CollapsenessSettings) -> Diagnostics:
    """The numbers of Figure 3, from the clean embeddings of a batch."""
    anchor_positive, anchor_negative = triplets.anchor_positive, triplets.anchor_negative
    return {
        "distance_anchor_positive": anchor_positive.mean(),
        "distance_anchor_negative": anchor_negative.mean(),
        "separability": geometry.separability(anchor_positive, anchor_negative),
        "hardness": geometry.hardness(anchor_positive, anchor_negative).mean(),
        "collapseness": collapseness(anchor_positive, anchor_negative),
        "unqualified_negatives": triplets.unqualified,
    }
