"""Batches and contexts in which a defense's whole step can be watched."""

from dataclasses import replace

import torch

from colotride.defenses import Batch, CollapsenessSettings, DefenseContext, StepInfo
from colotride.defenses.triplets import Triplets, mine_triplets
from colotride.distributed.shards import Shard
from colotride.pgd_settings import PGDSettings
from tests.toys import FlatModel, on_circle, random_images

PAIRS, MARGIN = 8, 0.2
MEAN = CollapsenessSettings(attention_factor=0.0)
PGD = PGDSettings(epsilon=0.1, step_size=0.02, steps=6, ramp="constant")
RECIPE = DefenseContext(PGD, MARGIN, "random", MEAN)
STRONG = replace(RECIPE, pgd=PGDSettings(epsilon=0.5, step_size=0.02, steps=60, ramp="constant"))
LATE, EARLY = StepInfo(epoch=9, epochs=10, step=0), StepInfo(epoch=0, epochs=10, step=0)


class Watched(FlatModel):
    """Remembers the images of every pass, and whether it was one of training."""

    def __init__(self, **values):
        super().__init__(**values)
        self.passes = []

    def forward(self, images):
        self.passes.append((images.detach().clone(), self.training))
        return super().forward(images)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def healthy():
    """Pairs of nearly equal images: d(A,P) is small, so that C < 0."""
    anchors = random_images(PAIRS)
    return Batch(anchors, (anchors + 0.05 * random_images(PAIRS, seed=1)).clamp(0, 1), torch.arange(PAIRS) % 4)


def collapsing():
    """Positives far from their anchors, all images of the other classes between them: C > 0."""
    return Batch(random_images(PAIRS), random_images(PAIRS, seed=5), torch.arange(PAIRS) % 2)


def step(batch, defense, info=LATE, seed=0):
    """One step: its loss, its diagnostics, the images that were trained on (part by part), and the model."""
    model = Watched()
    model.train()
    loss, diagnostics = defense.batch_loss(model, batch, info, draw(seed))
    trained = [images for images, training in model.passes if training]
    moving = defense.perturbed_parts(info)
    if moving not in ("nothing", "anchor"):
        return loss, diagnostics, list(trained[-1].chunk(3)), model
    # The clean parts are trained on through the pass that mined.
    assert torch.equal(trained[0], torch.cat([batch.anchor, batch.positive]))
    clean = triplets_of(batch, defense.context, seed)
    anchor = trained[1] if moving == "anchor" else batch.anchor
    return loss, diagnostics, [anchor, clean.positive, clean.negative], model


def triplets_of(batch, context=RECIPE, seed=0):
    return mine_triplets(FlatModel(), batch, context, MARGIN, draw(seed))


def distances_of(anchor, positive, negative):
    model = FlatModel()
    a, p, n = model(anchor), model(positive), model(negative)
    return (a - p).norm(dim=1), (a - n).norm(dim=1)


def triplets_at(anchors, positives, negatives, metric="euclidean"):
    """Triplets whose embeddings lie on the unit circle at these degrees; the images do not matter."""
    image = torch.zeros(len(anchors), 1, 1, 1)
    embeddings = on_circle(*anchors), on_circle(*positives), on_circle(*negatives)
    labels = torch.zeros(3 * len(anchors), dtype=torch.long)
    return Triplets(image, image, image, *embeddings, torch.tensor(0.0), labels, Shard(len(anchors)), metric)
