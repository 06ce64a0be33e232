"""The step that all defenses share: mine triplets, perturb some of their parts, and train on the result."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride import geometry
from colotride.defenses.options import parts_from_options
from colotride.defenses.pairs import paired_batch
from colotride.defenses.random_start import random_start
from colotride.defenses.triplets import (
    Batch,
    DefenseContext,
    DefenseSettings,
    Diagnostics,
    Parts,
    StepInfo,
    Triplets,
    clean_diagnostics,
    mine_triplets,
)
from colotride.defenses.weight_perturbation import at_perturbed_weights
from colotride.losses import LossBatch
from colotride.models import EmbeddingModel, UnitEmbeddings
from colotride.pgd import Objective, perturb
from colotride.pgd_settings import Budget
from colotride.randomness import generator as stream
from colotride.registry import LOSSES

S = TypeVar("S", bound=DefenseSettings)

PerturbedParts = Literal["nothing", "candidates", "anchor", "all"]
"""Which parts of the triplets a perturbation moves: none, P and N (CAP), A (ANP), or A, P and N (SIP)."""

MOVING: Mapping[PerturbedParts, tuple[int, ...]] = {
    "nothing": (),
    "candidates": (1, 2),
    "anchor": (0,),
    "all": (0, 1, 2),
}
"""Their places among `Parts`."""


@dataclass(frozen=True)
class Perturbation:
    """What a defense does with one batch."""

    objective: Objective | None = None
    """A function of the embeddings of `cat(moving parts)`, to be minimised; see `perturb`. None moves nothing."""
    start: Tensor | None = None
    """Where the perturbation starts, if not at the clean images."""
    extra_loss: Callable[[Parts, Parts], Tensor] | None = None
    """Added to the base loss; takes the embeddings of the perturbed triplets and of the clean ones."""
    assist: Tensor | None = None
    """1 where this batch is assisted, 0 where it is attacked."""


class TripletDefense(ABC, Generic[S]):
    """The base of all defenses: a subclass decides what moves in a batch and why, everything else is here.

    Subclasses implement `perturbed_parts` and `perturbation`; one that carries something from batch to batch also
    overrides `after` and the two methods of its state. The trainer calls `batch_loss`; your own training loop calls the
    defense itself, with images and labels.

    Attributes:
        Settings: class of the settings, whose `name` is the defense's.
        trains_clean_too: whether the extra loss trains on the clean anchors and positives.
        diagnostics: named scalars of the last batch on which the defense was called, on the device.
    """

    Settings: type[S]
    trains_clean_too = False

    def __init__(
        self, settings: S | None = None, context: DefenseContext | None = None, *, seed: int = 0, **options: Any
    ) -> None:
        """Make a defense: from the sections of a configuration, or from single options.

        Args:
            settings: of this defense; None takes them from the options.
            context: the settings that every defense needs; None takes them from the options.
            seed: of the mining in `__call__`.
            options: fields of `Settings`, and of the settings of perturbation (`epsilon`, `step_size`, `steps`, ...),
                collapseness (`attention_factor`, ...) and training (`margin`, `miner`, `metric`, `loss`). Options that
                are not given have the values that the authors of the defense use.

        Raises:
            ConfigurationError: an unknown option, or a value out of range.
        """
        if settings is None or context is None:
            from_options = parts_from_options(self.Settings, options)
            settings, context = settings or from_options[0], context or from_options[1]
        self.settings, self.context, self.seed = settings, context, seed
        self.diagnostics: Diagnostics = {}

    @abstractmethod
    def perturbed_parts(self, info: StepInfo) -> PerturbedParts:
        """Which parts of the triplets move in this batch."""

    @abstractmethod
    def perturbation(
        self, triplets: Triplets, diagnostics: Diagnostics, info: StepInfo, generator: torch.Generator
    ) -> Perturbation:
        """Decide what to do with a batch.

        Args:
            triplets: clean.
            diagnostics: of the clean batch; `collapseness` is the C that COLO follows.
            info: decides phases and early disabling.
            generator: CPU generator of this batch.
        """

    def semi_hard_margin(self, info: StepInfo) -> float:
        """Width of the semi-hard margin; constant, unless a defense shrinks it."""
        return self.context.margin

    def after(self, loss: Float[Tensor, ""]) -> None:
        """Receive the base loss of the batch on its perturbed triplets."""

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "images channels height width"],
        labels: Int[Tensor, "labels"],
        *,
        step: int,
        epoch: int,
        epochs: int,
    ) -> Float[Tensor, ""]:
        """The loss of one batch in your own training loop, with the graph for `loss.backward()`.

        The images of each class are paired in the order in which they come: first with second, third with fourth. The
        last one of an odd number is left out. Negatives are mined among all paired images. The diagnostics of the batch
        are in `diagnostics` afterwards.

        Args:
            model: any module that maps pixels in [0, 1] to embeddings [images, dim]; they are normalised to length 1
                here where the model does not. It keeps its mode and its `requires_grad`.
            images: pixels in [0, 1], on the device of the model. Normalisation by mean and standard deviation belongs
                into the model, because epsilon is in pixel units.
            labels: class of each image; at least two classes, and at least two images of each.
            step: batches trained before this one, over all epochs; COLO-TRIDE alternates its phases by it.
            epoch: counted from 0.
            epochs: length of the whole run.

        Raises:
            DataError: pixels outside [0, 1], a class with a single image, or a batch of one class.
            ModelError: the model does not return one embedding per image.
        """
        batch, info = paired_batch(images, labels), StepInfo(epoch, epochs, step)
        whole = model if isinstance(model, EmbeddingModel) else UnitEmbeddings(model)
        loss, self.diagnostics = self.batch_loss(whole, batch, info, stream(self.seed, "mining", epoch, step))
        return loss

    def batch_loss(
        self, model: nn.Module, batch: Batch, info: StepInfo, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Diagnostics]:
        """See `Defense.batch_loss`."""
        moving = self.perturbed_parts(info)
        # The pass that mines also trains where whole clean parts are trained on. CAP trains on clean anchors alone:
        # a backward pass through its positives too would cost more than another pass of the anchors.
        clean_weight = 0.0 if moving == "nothing" else self.context.clean_weight
        trains_clean = self.trains_clean_too or clean_weight > 0 or moving in ("nothing", "anchor")
        triplets = mine_triplets(
            model, batch, self.context, self.semi_hard_margin(info), generator, trains_clean=trains_clean
        )
        diagnostics = clean_diagnostics(triplets, self.context.collapseness)
        perturbation = self.perturbation(triplets, diagnostics, info, generator)
        budget = self.context.pgd.budget(info.epoch, info.epochs).refined(info.refinement)
        start = self.context.pgd.random_start
        images = perturb_parts(model, triplets, moving, perturbation, budget, start, generator)
        clean_parts = 3 if clean_weight > 0 else 2 if self.trains_clean_too else 0

        def losses(embedded: Parts, clean: Parts) -> tuple[Tensor, Tensor]:
            loss = base = self._base_loss(embedded, triplets)
            if clean_weight > 0:
                loss = (1 - clean_weight) * loss + clean_weight * self._base_loss(clean, triplets)
            return base, loss if perturbation.extra_loss is None else loss + perturbation.extra_loss(embedded, clean)

        embedded, clean = embed(model, images, triplets, moving, clean_parts=clean_parts)
        base, loss = losses(embedded, clean)
        self.after(base.detach())
        if self.context.weight_perturbation > 0:
            moved = at_perturbed_weights(model, loss, self.context.weight_perturbation, triplets.shard.group)
            again = replace(triplets, trainable=None)
            # What is reported, and what collapse is judged by, is the loss at the weights as they are.
            diagnostics["loss"] = loss.detach()
            loss = losses(*embed(moved, images, again, moving, clean_parts=clean_parts))[1]
            diagnostics["moved_weights_loss"] = loss.detach()
        if perturbation.assist is not None:
            diagnostics["assist"] = perturbation.assist
        return loss, diagnostics | self._perturbed_diagnostics(embedded, triplets, moving)

    def _base_loss(self, embedded: Parts, triplets: Triplets) -> Float[Tensor, ""]:
        batch = LossBatch(
            *embedded,
            labels=triplets.labels,
            margin=self.context.margin,
            distances=triplets.distances,
            join=triplets.shard.join,
        )
        loss: Tensor = LOSSES[self.context.loss](batch)
        return loss

    def _perturbed_diagnostics(self, embedded: Parts, triplets: Triplets, moving: PerturbedParts) -> Diagnostics:
        """Figure 4's embedding shift, named by what moved, and how hard the perturbed triplets are."""
        if moving == "nothing":
            return {}
        with torch.no_grad():
            moved = torch.cat(chosen(embedded, moving))
            start = torch.cat(chosen(clean_embeddings(triplets), moving))
            to_positive = triplets.distances(embedded.anchor, embedded.positive)
            to_negative = triplets.distances(embedded.anchor, embedded.negative)
            return {
                f"shift_{moving}": geometry.relative_shift(triplets.distances(moved, start), triplets.anchor_positive),
                "perturbed_hardness": geometry.hardness(to_positive, to_negative).mean(),
                "perturbed_collapseness": self.context.collapseness(to_positive, to_negative),
            }

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on; empty unless a defense has a state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; nothing unless a defense has a state."""


def perturb_parts(
    model: nn.Module,
    triplets: Triplets,
    moving: PerturbedParts,
    perturbation: Perturbation,
    budget: Budget,
    noise: float,
    generator: torch.Generator,
) -> Parts:
    """The images of the triplets after the perturbation of the moving parts.

    Args:
        model: maps images to embeddings.
        triplets: clean.
        moving: which parts.
        perturbation: its objective, and its start if it has one of its own.
        budget: of the perturbation.
        noise: size of the random start as a share of epsilon, where the perturbation has no start of its own.
        generator: of the noise.
    """
    images = triplets.images
    if perturbation.objective is None:
        return images
    clean, start = torch.cat(chosen(images, moving)), perturbation.start
    if start is None and noise > 0:
        start = random_start(clean, noise * budget.epsilon, budget.norm, triplets.shard, generator)
    moved = perturb(model, clean, perturbation.objective, budget, start, triplets.shard.group, recorded=True)
    if moving == "anchor":
        return images._replace(anchor=moved)
    if moving == "candidates":
        positive, negative = moved.chunk(2)
        return images._replace(positive=positive, negative=negative)
    return Parts(*moved.chunk(3))


def clean_embeddings(triplets: Triplets) -> Parts:
    """Embeddings of the clean triplets by the model in evaluation mode, without a graph."""
    return Parts(triplets.anchor_embedding, triplets.positive_embedding, triplets.negative_embedding)


def embed(
    model: Callable[[Tensor], Tensor], images: Parts, triplets: Triplets, moving: PerturbedParts, *, clean_parts: int
) -> tuple[Parts, Parts]:
    """Embed perturbed triplets with the graph that training needs: every image that has none yet, in one pass.

    Args:
        model: in training mode.
        images: the triplets after the perturbation.
        triplets: the clean ones.
        moving: which parts the perturbation moved.
        clean_parts: how many of the clean parts are trained on as well: none, A and P (2), or all three.

    Returns:
        Embeddings of the perturbed triplets, and of the clean ones; those without a graph are from the frozen model.
    """
    clean = triplets.trainable or clean_embeddings(triplets)
    if triplets.trainable is not None:
        if moving == "nothing":
            return clean, clean
        if moving == "anchor":
            return clean._replace(anchor=model(images.anchor)), clean
        return Parts(*model(torch.cat(images)).chunk(3)), clean
    # A clean part that did not move is among the images already.
    also = [part for part in range(clean_parts) if part in MOVING[moving]]
    rows = model(torch.cat([*images, *(triplets.images[part] for part in also)])).chunk(3 + len(also))
    perturbed, held = Parts(*rows[:3]), dict(zip(also, rows[3:], strict=True))
    trained = [held.get(part, perturbed[part]) for part in range(clean_parts)]
    return perturbed, Parts(*trained, *clean[clean_parts:])


def chosen(parts: Parts, moving: PerturbedParts) -> tuple[Tensor, ...]:
    """The parts that move; all where nothing does."""
    return tuple(parts[part] for part in MOVING[moving] or MOVING["all"])
