"""What every attack of an evaluation has to hold, as tests that anybody's attack can inherit.

from colotride.testing.attacks import AttackContract

class TestMine(AttackContract):
def make(self):
return Mine()
"""

import torch
from torch import Tensor
from torch.nn import functional

from colotride.evaluation.attacks import Attack, AttackBatch
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.scores import ATTACK_COLUMNS
from colotride.pgd_settings import Budget
from colotride.testing.defenses import LinearEmbedding

IMAGES, CLASSES = 48, 4


class AttackContract:
    """Subclasses implement `make`."""

    own_numbers = True
    """Whether its numbers stand beside those of the nine attacks, and so need names of their own."""

    def make(self) -> Attack:
        """A new attack."""
        raise NotImplementedError

    def images(self) -> Tensor:
        """Random ones, 3 x 4 x 4 pixels."""
        return torch.rand(IMAGES, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    def gallery(self) -> Gallery:
        """Their embeddings, in classes that the model tells apart in part."""
        embeddings = LinearEmbedding()(self.images()).detach()
        return Gallery(embeddings, 2 * (embeddings[:, 0] > 0).long() + (embeddings[:, 1] > 0).long())

    def attacked(self, attack: Attack, moving: Tensor) -> AttackBatch:
        """A batch whose targets the attack drew."""
        gallery = self.gallery()
        target = attack.draw(gallery, torch.arange(IMAGES), torch.Generator().manual_seed(0))
        return AttackBatch(gallery, moving, target[moving])

    def test_targets_are_places_in_the_gallery_and_come_from_the_generator_alone(self) -> None:
        """One for every image that moves."""
        gallery, moving = self.gallery(), torch.arange(0, IMAGES, 2)
        drawn = [self.make().draw(gallery, moving, torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*drawn)
        assert drawn[0].shape == moving.shape
        assert drawn[0].dtype == torch.int64
        assert 0 <= int(drawn[0].min()) <= int(drawn[0].max()) < IMAGES

    def test_each_image_has_its_own_loss(self) -> None:
        """Of every objective: finite, with a finite gradient, and the same whatever else is in the batch."""
        attack, everything = self.make(), torch.arange(IMAGES)
        random = torch.Generator().manual_seed(2)
        noise = 0.1 * torch.randn(IMAGES, 8, generator=random)
        whole = self.attacked(attack, everything)
        moved = functional.normalize(whole.clean + noise, dim=1)
        some = everything[5:9]
        part = self.attacked(attack, some)
        every = (attack.objective(whole), *attack.other_objectives(whole))
        few = (attack.objective(part), *attack.other_objectives(part))
        for objective, objective_of_few in zip(every, few, strict=True):
            leaf = moved.clone().requires_grad_(True)
            losses = objective(leaf)
            assert losses.shape == (IMAGES,)
            assert torch.isfinite(losses).all()
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
            assert torch.isfinite(gradient).all()
            torch.testing.assert_close(losses.detach()[some], objective_of_few(moved[some]), atol=1e-5, rtol=1e-4)

    def test_what_is_measured_has_the_announced_names_and_one_value_per_image(self) -> None:
        """And those names are its own."""
        attack = self.make()
        attacked = self.attacked(attack, torch.arange(10))
        measured = attack.measure(attacked, attacked.clean)
        assert list(measured) == list(attack.numbers)
        assert set(attack.numbers.values()) <= {"raised", "lowered"}
        assert self.own_numbers == (not set(attack.numbers) & set(ATTACK_COLUMNS))
        for values in measured.values():
            assert values.shape == (10,)
            assert torch.isfinite(values).all()

    def test_it_moves_its_numbers_where_it_says(self) -> None:
        """On a model that resists nothing, every number on average."""
        attack, model = self.make(), LinearEmbedding()
        attacked = self.attacked(attack, torch.arange(IMAGES))
        before = attack.measure(attacked, attacked.clean)
        after = attack.run(model, self.images(), attacked, Budget(0.2, 0.05, 10))
        for name, direction in attack.numbers.items():
            change = float((after[name] - before[name]).mean())
            assert change > 0 if direction == "raised" else change < 0, name

    def test_the_same_batch_gives_the_same_result(self) -> None:
        """Nothing is drawn at random during the attack."""
        first, second = (
            attack.run(
                LinearEmbedding(), self.images(), self.attacked(attack, torch.arange(IMAGES)), Budget(0.1, 0.05, 3)
            )
            for attack in (self.make(), self.make())
        )
        assert all(torch.equal(first[name], second[name]) for name in first)
