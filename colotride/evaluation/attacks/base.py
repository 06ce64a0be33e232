"""What an attack is, and the table of those that an evaluation runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from colotride.evaluation import targets
from colotride.evaluation.gallery import Gallery, checked
from colotride.evaluation.settings import Protocol
from colotride.geometry import centred_distance_matrix
from colotride.pgd import Objective, frozen, perturb
from colotride.pgd_settings import Budget
from colotride.registry import ATTACKS

Outcomes = dict[str, Tensor]
"""Of every reported number, the value of each image, [batch]."""

Direction = Literal["raised", "lowered"]


@dataclass(frozen=True)
class AttackBatch:
    """A batch under attack: which images move, and which image is each one's target."""

    gallery: Gallery
    moving: Int[Tensor, "batch"]
    target: Int[Tensor, "batch"]

    @property
    def clean(self) -> Float[Tensor, "batch dim"]:
        """Embeddings of the moving images before the attack."""
        return self.gallery.embeddings[self.moving]

    @property
    def target_embedding(self) -> Float[Tensor, "batch dim"]:
        """Clean embeddings of the targets."""
        return self.gallery.embeddings[self.target]

    def to_gallery(self, embeddings: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch images"]:
        """Distances B from embeddings to the whole gallery; differentiable."""
        return centred_distance_matrix(embeddings - self.gallery.centre, *self.gallery.placed)

    def to_target(self, to_gallery: Float[Tensor, "batch images"]) -> Float[Tensor, "batch 1"]:
        """Of the distances to the gallery those to the targets, so that both sides of a comparison are one number."""
        return to_gallery.gather(1, self.target[:, None])


class Attack(ABC):
    """One attack: how its targets are drawn, what it minimises and what is reported.

    A new attack is a subclass in a file of its own, under `@register_attack("name")`.
    """

    numbers: ClassVar[Mapping[str, Direction]]
    """What is reported, and where the attack wants to move it."""

    def draw(self, gallery: Gallery, moving: Int[Tensor, "queries"], random: torch.Generator) -> Tensor:
        """Choose a target for every image, before the attack; the image itself unless a subclass says otherwise."""
        return targets.itself(gallery, moving, random)

    @abstractmethod
    def objective(self, attacked: AttackBatch) -> Objective:
        """The attack's loss: from the embeddings of the moving images to each one's own loss, to be minimised.

        PGD follows the gradient of the sum, so that every image gets the perturbation that it would get alone.
        """

    def other_objectives(self, attacked: AttackBatch) -> tuple[Objective, ...]:
        """Further losses with the same goal, for the ensemble of the `strong` protocol."""
        return ()

    @abstractmethod
    def measure(self, attacked: AttackBatch, embeddings: Float[Tensor, "batch dim"]) -> Outcomes:
        """The reported values of each image, from the embeddings of the moving images, clean or perturbed."""

    def run(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channels height width"],
        attacked: AttackBatch,
        budget: Budget,
    ) -> Outcomes:
        """Perturb a batch with PGD, and measure.

        Args:
            model: maps pixels in [0, 1] to unit vectors.
            images: the moving images.
            attacked: their places and their targets.
            budget: radius, norm, step size, steps.

        Raises:
            ModelError: unusable embeddings of perturbed images.
        """
        return self.measure(attacked, embedded(model, perturb(model, images, self.objective(attacked), budget)))


def embedded(model: nn.Module, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
    """Checked embeddings by the model in inference mode."""
    with frozen(model) as embed, torch.no_grad():
        return checked(embed(images), len(images), images.device)


_PUBLISHED: dict[str, type[Attack]] = {}


def published(name: str) -> Callable[[type[Attack]], type[Attack]]:
    """Mark how the code behind the papers' numbers runs the attack of this name, for the `published` protocol."""

    def register(attack: type[Attack]) -> type[Attack]:
        _PUBLISHED[name] = attack
        return attack

    return register


def attack_named(name: str, protocol: Protocol) -> Attack:
    """The attack of this name, as a protocol runs it.

    Raises:
        ConfigurationError: nobody registered one.
    """
    attack = ATTACKS[name]
    return (_PUBLISHED.get(name, attack) if protocol == "published" else attack)()
