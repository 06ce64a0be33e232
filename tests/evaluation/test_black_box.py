"""Attacks without gradients on linear models: successes are real, calls are those that were made, boxes are kept."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from colotride.data.base import InMemoryImages
from colotride.evaluation import ranking, square
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.black_box import black_box_table, black_box_values, run_black_box, run_transfer
from colotride.evaluation.gallery import embed_gallery, read_views
from colotride.evaluation.retrieval_service import list_relevance, returned_list
from colotride.evaluation.strength_parts import joined
from colotride.evaluation.targets import nearest_others
from colotride.pgd import Ball
from colotride.pgd_settings import Budget
from tests.evaluation.galleries import ranked, toy_gallery
from tests.toys import FlatModel

CPU = torch.device("cpu")
SIDE = 4


class Counting(FlatModel):
    """A linear model that remembers which images it was shown."""

    def __init__(self, seed=0):
        super().__init__(3 * SIDE * SIDE, 6, seed)
        self.shown = 0

    def forward(self, images):
        self.shown += len(images)
        return super().forward(images)


def scene(model, count=40):
    random = torch.Generator().manual_seed(0)
    base = torch.randint(60, 196, (4, 3, SIDE, SIDE), generator=random)
    noise = torch.randint(-25, 26, (count, 3, SIDE, SIDE), generator=random)
    images = InMemoryImages("toy", (base.repeat(count // 4, 1, 1, 1) + noise).to(torch.uint8), torch.arange(count) % 4)
    gallery = embed_gallery(model, images, image_size=SIDE, batch_size=count, device=CPU)
    queries = torch.arange(0, count, 2)
    batch = AttackBatch(gallery, queries, nearest_others(gallery, queries, random))
    return images, gallery, read_views(images, queries, SIDE, model, CPU), batch


def size(change, norm):
    flat = change.flatten(1).double()
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["square", "nes", "qair"])
def test_successes_are_real_and_calls_are_counted(name, norm):
    model = Counting()
    _, gallery, views, batch = scene(model)
    epsilon = {"linf": 0.15, "l2": 0.8}[norm]
    model.shown = 0
    found = run_black_box(name, model, views, batch, Budget(epsilon, 0.1, 8, norm), 84, seed=1)
    assert model.shown == int(found.calls.sum()), "every call is counted"
    assert 0.3 < found.success.double().mean() <= 1, "an attack that never succeeds shows nothing"
    assert bool((found.calls[found.success] >= 1).all())
    assert int(found.calls.max()) <= 84
    unsolved = found.attacked & ~found.success
    assert bool((found.calls[unsolved] >= 84 - 20).all()), "who does not succeed spends the budget"
    assert bool((size(found.images - views, norm) <= epsilon + 1e-6).all())
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    with torch.no_grad():
        recall = ranking.first_result_is_match(gallery, model(found.images), batch.moving)
    assert torch.equal(recall == 0, found.success | ~found.attacked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["square", "nes", "qair"])
def test_neither_batches_nor_time_change_a_query(name):
    model = Counting()
    _, gallery, views, batch = scene(model)
    budget = Budget(0.05, 0.1, 8)
    whole = run_black_box(name, model, views, batch, budget, 63, seed=1)
    part = AttackBatch(gallery, batch.moving[5:9], batch.target[5:9])
    alone = run_black_box(name, model, views[5:9], part, budget, 63, seed=1)
    assert torch.equal(alone.calls, whole.calls[5:9])
    assert torch.allclose(alone.images, whole.images[5:9], atol=1e-5)
    other = run_black_box(name, model, views, batch, budget, 63, seed=2)
    assert not torch.equal(other.images, whole.images)


def test_more_room_and_more_calls_succeed_more_often():
    model = Counting()
    _, _, views, batch = scene(model)

    def successes(epsilon, calls):
        return int(run_black_box("square", model, views, batch, Budget(epsilon, 0.1, 8), calls, 0).success.sum())

    assert successes(0.0, 30) == 0
    assert successes(0.03, 40) < successes(0.2, 40)
    assert successes(0.1, 3) < successes(0.1, 80)


def test_nes_finds_the_gradient_of_a_linear_loss():
    """One query, one match and one other image: the margin is linear along the circle, its gradient known."""

    class Tangent(nn.Module):
        def forward(self, images):
            angle = (images.flatten(1) * torch.linspace(-1, 1, 48)).sum(dim=1)
            return torch.stack([angle.cos(), angle.sin()], dim=1)

    model = Tangent()
    pixels = torch.full((4, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    weights = torch.linspace(-1, 1, 48).view(3, SIDE, SIDE)
    pixels[1] = (128 + 10 * weights).to(torch.uint8)  # the query's match, at a larger angle
    pixels[2] = (128 - 20 * weights).to(torch.uint8)
    pixels[3] = (128 - 25 * weights).to(torch.uint8)
    images = InMemoryImages("toy", pixels, torch.tensor([0, 0, 1, 1]))
    gallery = embed_gallery(model, images, image_size=SIDE, batch_size=4, device=CPU)
    batch = AttackBatch(gallery, torch.tensor([0]), torch.tensor([1]))
    view = read_views(images, batch.moving, SIDE, model, CPU)
    found = run_black_box("nes", model, view, batch, Budget(0.01, 0.1, 8), 210, seed=0)
    moved = -float(((found.images[0] - view[0]) * weights).sum()) / (0.01 * float(weights.abs().sum()))
    assert not bool(found.success[0])
    assert 0.5 < moved <= 1 + 1e-6, "random signs would go 0 of the way, with a standard deviation of 0.17"


def test_list_relevance_is_one_for_the_same_list_and_zero_for_another():
    clean = torch.tensor([[3, 5, 7], [3, 5, 7], [3, 5, 7], [3, 5, 7]])
    now = torch.tensor([[3, 5, 7], [1, 2, 4], [5, 3, 7], [1, 3, 2]])
    weight = [1 / math.log2(2 + place) for place in range(3)]
    total = sum(one * one for one in weight)
    swapped = (2 * weight[0] * weight[1] + weight[2] ** 2) / total
    expected = torch.tensor([1, 0, swapped, weight[0] * weight[1] / total], dtype=torch.float64)
    assert torch.allclose(list_relevance(clean, now), expected)


def test_the_returned_list_is_the_sorted_gallery_without_the_query():
    gallery = toy_gallery()
    queries = torch.arange(len(gallery))
    found = returned_list(gallery, gallery.embeddings, queries, 6)
    assert found.tolist() == [ranked(gallery, int(query))[:6] for query in queries]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_proposal_changes_one_window_and_spends_the_budget(norm):
    images = torch.full((6, 3, 8, 8), 0.5)
    ball = Ball.around(images, 0.2, norm)
    queries = torch.arange(6)
    start = square.stripes(ball, queries, 1)
    moved = square.proposal(ball, start, queries, 3, 2)
    changed = (moved != start).any(dim=1)
    assert bool((size(start - images, norm) - 0.2).abs().max() < 1e-5)
    assert bool((size(moved - images, norm) - 0.2).abs().max() < 1e-5), "no pixel is clipped here"
    if norm == "linf":
        assert bool((changed.flatten(1).sum(dim=1) <= 9).all())
        assert torch.allclose((moved - images).abs(), torch.tensor(0.2))
    assert len({tuple(one.flatten().tolist()) for one in moved}) == 6, "each query has its own window"


def test_windows_shrink_as_in_the_paper():
    sides = [window_side_squared(step) for step in (0, 10, 11, 51, 201, 8001)]
    expected = [0.8 / 2**halvings for halvings in (0, 0, 1, 2, 3, 9)]
    assert sides == [round(math.sqrt(share * 224 * 224)) ** 2 for share in expected]


def window_side_squared(step):
    return square.window_side(step, 10_000, 224, 224) ** 2


def test_windows_lie_everywhere():
    ball = Ball.around(torch.full((400, 1, 5, 5), 0.5), 0.2, "linf")
    moved = square.proposal(ball, ball.images.clone(), torch.arange(400), 1, 7)
    places = Counter((moved != 0.5).flatten(1).int().argmax(dim=1).tolist())
    assert set(places) == set(range(25))


def test_transfer_from_the_model_itself_succeeds_and_from_a_stranger_less():
    model, stranger = Counting(), Counting(seed=5)
    images, gallery, views, batch = scene(model)
    budget = Budget(0.15, 0.03, 16)
    own = run_transfer(model, gallery, model, views, batch, budget)
    foreign = embed_gallery(stranger, images, image_size=SIDE, batch_size=40, device=CPU)
    other = run_transfer(stranger, foreign, model, views, batch, budget)
    assert own.success.sum() > 15
    assert other.success.sum() < own.success.sum()
    assert torch.equal(own.calls, own.attacked.long())


def test_the_table_has_the_means_of_the_queries():
    model = Counting()
    _, gallery, views, batch = scene(model)
    budget = Budget(0.1, 0.02, 4)

    def of(name):
        parts = [slice(0, 8), slice(8, 20)]
        batches = [AttackBatch(gallery, batch.moving[part], batch.target[part]) for part in parts]
        return joined(
            [
                black_box_values(name, model, views[part], one, budget, 40, 3, (model, gallery))
                for part, one in zip(parts, batches, strict=True)
            ]
        )

    found = black_box_table({name: of(name) for name in ("square", "transfer")}, budget, 40, seconds=1.0)
    whole = run_black_box("square", model, views, batch, budget, 40, 3)
    row = found.rows["square"]
    succeeded, attacked = whole.success, whole.attacked
    assert row["success %"] == pytest.approx(100 * float(succeeded.sum()) / float(attacked.sum()))
    assert row["mean calls"] == pytest.approx(float(whole.calls[attacked].double().mean()))
    assert row["R@1 before"] == pytest.approx(100 * float(attacked.double().mean()))
    assert row["R@1 after"] == pytest.approx(row["R@1 before"] * (1 - row["success %"] / 100))
    assert row["rank before %"] == 0
    assert row["rank after %"] > 0
    assert found.rows["transfer"]["mean calls"] == 1
    assert found.calls == int(whole.calls.sum() + attacked.sum())
