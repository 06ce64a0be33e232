"""Certificates against closed forms: on a linear embedding the smoothed search is known, and so is its exact radius."""

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn

from colotride.evaluation import certified
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.certified import (
    ABSTAINS,
    certificates,
    certified_table,
    certified_values,
    certify,
    first_classes,
)
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.strength_parts import joined
from colotride.evaluation.strength_settings import StrengthSettings
from tests.evaluation.galleries import d, others, shaken, toy_gallery
from tests.toys import on_circle

SIGMA = 0.25


class HalfSpace(nn.Module):
    """Which side of a plane the image lies on: one of two points, so that the first result is linear in the pixels."""

    def __init__(self):
        super().__init__()
        direction = torch.randn(12, generator=torch.Generator().manual_seed(3))
        self.register_buffer("direction", direction / direction.norm())

    def forward(self, images):
        side = (images.flatten(1) - 0.5) @ self.direction
        return torch.where(side[:, None] > 0, on_circle(0.0), on_circle(90.0))


def queries_at(model, margins):
    return 0.5 + torch.tensor(margins)[:, None, None, None] * model.direction.view(1, 3, 2, 2)


def test_on_a_linear_embedding_the_radius_is_the_distance_to_the_plane():
    """P(right) = Phi(margin / sigma), so that the exact radius sigma Phi^-1(P) is the margin itself."""
    model, margins = HalfSpace(), [0.05, 0.1, 0.2, 0.3, -0.2]
    embeddings = on_circle(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 91.0)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1])
    # The queries' own clean embeddings play no part: each leaves itself out, but finds the others at angle 0.
    batch = AttackBatch(Gallery(embeddings, labels), torch.arange(5), torch.arange(5))
    samples, alpha = 4000, 0.001
    found = certify(
        model,
        queries_at(model, margins),
        batch,
        sigma=SIGMA,
        samples=samples,
        selection=50,
        alpha=alpha,
        seed=0,
        batch_size=512,
    )
    assert found.predicted.tolist() == [0, 0, 0, 0, 1]
    exact = torch.tensor(margins, dtype=torch.float64).abs()
    assert bool((found.radius <= exact).all()), "a certificate beyond the plane is wrong"
    # Four standard errors below, which the bound costs at this alpha.
    probability = torch.from_numpy(norm.cdf(exact / SIGMA))
    spread = 7 * (probability * (1 - probability) / samples).sqrt()
    assert bool((found.radius >= SIGMA * torch.from_numpy(norm.ppf(probability - spread))).all())


def test_a_query_on_the_plane_abstains():
    model = HalfSpace()
    embeddings = on_circle(0.0, 1.0, 91.0, 92.0)
    batch = AttackBatch(Gallery(embeddings, torch.tensor([0, 0, 1, 1])), torch.tensor([0]), torch.tensor([0]))
    found = certify(
        model,
        queries_at(model, [0.0]),
        batch,
        sigma=SIGMA,
        samples=300,
        selection=20,
        alpha=0.001,
        seed=0,
        batch_size=512,
    )
    assert found.predicted.tolist() == [ABSTAINS]
    assert found.radius.tolist() == [0]


def test_bounds_are_clopper_pearsons():
    hits, trials, alpha = torch.tensor([0, 1, 60, 99, 100]), 100, 0.01
    expected = [
        binomtest(int(k), trials, alternative="greater").proportion_ci(1 - alpha, method="exact").low for k in hits
    ]
    assert certified.lower_bound(hits, trials, alpha).tolist() == pytest.approx(expected)


def test_certificates_of_known_counts():
    found = certificates(torch.tensor([2, 1, 0]), torch.tensor([1000, 500, 700]), 1000, 0.5, 0.001)
    assert found.predicted.tolist() == [2, ABSTAINS, 0]
    # All of n samples: p = alpha^(1/n).
    assert float(found.radius[0]) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)))
    assert float(found.radius[1]) == 0


def test_first_classes_are_those_of_a_slow_search():
    gallery = toy_gallery()
    queries = torch.arange(len(gallery))
    moved = shaken(gallery, queries)
    expected = [
        int(gallery.labels[min(others(gallery, q), key=lambda j, q=q: d(moved[q], gallery.embeddings[j]))])
        for q in range(len(gallery))
    ]
    assert first_classes(gallery, moved, queries).tolist() == expected


def test_a_tie_between_classes_is_no_answer():
    gallery = Gallery(on_circle(0.0, 10.0, -10.0, 10.0), torch.tensor([0, 0, 1, 0]))
    assert first_classes(gallery, on_circle(0.0), torch.tensor([0])).tolist() == [ABSTAINS]
    assert first_classes(gallery, on_circle(5.0), torch.tensor([0])).tolist() == [0]


def test_the_table_counts_certified_matches_and_its_cost():
    model = HalfSpace()
    embeddings, labels = on_circle(0.0, 91.0, 0.0, 1.0, 91.0), torch.tensor([0, 1, 0, 0, 1])
    gallery, images = Gallery(embeddings, labels), queries_at(model, [0.2, 0.2, 0.02])

    settings = StrengthSettings(
        certify=SIGMA, certify_radii=(0.0, 0.1, 0.3), certify_samples=400, certify_selection=20, certify_alpha=0.001
    )
    batches = [(images[rows], AttackBatch(gallery, rows, rows)) for rows in torch.arange(3).split(2)]
    values = [certified_values(model, *batch, SIGMA, settings, 0, 128) for batch in batches]
    found = certified_table({SIGMA: joined(values)}, settings, seconds=1.0)
    whole = certify(
        model,
        images,
        AttackBatch(gallery, torch.arange(3), torch.arange(3)),
        sigma=SIGMA,
        samples=400,
        selection=20,
        alpha=0.001,
        seed=0,
        batch_size=2,
    )
    row = found.rows["sigma 0.25"]
    right = [whole.predicted[q] == labels[q] for q in range(3)]
    for length in (0.0, 0.1, 0.3):
        share = sum(bool(right[q] and whole.radius[q] >= length) for q in range(3)) / 3
        assert row[f"R@1 at {length:g}"] == pytest.approx(100 * share)
    assert row["R@1 at 0"] > row["R@1 at 0.3"] == 0
    assert row["abstains %"] == pytest.approx(100 * float((whole.predicted == ABSTAINS).double().mean()))
    assert found.calls == 3 * 420
