"""Every attack's targets, loss and outcome against loops written from evaluation.md."""

import numpy as np
import pytest
import torch

from colotride.evaluation import targets
from colotride.evaluation.attacks import AttackBatch, attack_named
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.scores import ATTACK_COLUMNS, ATTACK_NAMES
from colotride.evaluation.settings import EvaluationSettings
from colotride.geometry import distances
from colotride.pgd import perturb
from colotride.pgd_settings import Budget
from tests.evaluation.galleries import d, others, ranked, shaken, toy_gallery
from tests.toys import FlatModel, random_images

ALL = torch.arange(30)
STRICT = {name: attack_named(name, "strict") for name in ATTACK_NAMES}
PUBLISHED = {name: attack_named(name, "published") for name in ATTACK_NAMES}


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nine_attacks_report_the_ten_numbers_of_the_tables():
    assert [number for attack in STRICT.values() for number in attack.numbers] == list(ATTACK_COLUMNS)


def test_random_targets_reach_everything_but_the_image_itself():
    gallery = toy_gallery()
    drawn = torch.stack([targets.random_others(gallery, ALL, draw(seed)) for seed in range(300)])
    assert (drawn != ALL).all()
    assert all(len(drawn[:, query].unique()) == 29 for query in range(30))


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_near_targets_come_from_the_nearest_share_and_at_least_one(share, monkeypatch):
    monkeypatch.setattr(targets, "TOP_SHARE", share)
    gallery, count = toy_gallery(), max(1, round(share * 30))
    drawn = torch.stack([targets.random_among_nearest(gallery, ALL, draw(seed)) for seed in range(60)])
    for query in range(30):
        assert set(drawn[:, query].tolist()) == set(ranked(gallery, query)[:count])


def test_first_result_and_nearest_of_another_class_are_those_of_a_loop():
    gallery = toy_gallery()
    first = targets.nearest_others(gallery, ALL, draw())
    unmatch = targets.nearest_of_other_class(gallery, ALL, draw())
    for query in range(30):
        results = ranked(gallery, query)
        assert first[query] == results[0]
        assert unmatch[query] == next(j for j in results if gallery.labels[j] != gallery.labels[query])


def test_the_published_unmatch_mistakes_a_position_for_a_place_and_the_first_result_for_the_query():
    gallery = toy_gallery()
    got = targets.published_unmatch(gallery, ALL, draw())
    for query in range(30):
        results = ranked(gallery, query)
        wrong_class = [j for j in range(30) if gallery.labels[j] != gallery.labels[results[0]]]
        meant = next(j for j in results if j in wrong_class)
        assert got[query] == wrong_class.index(meant)
    assert not torch.equal(got, targets.nearest_of_other_class(gallery, ALL, draw()))


def loss_by_hand(name, gallery, moving, target, moved, published=False):
    """The table of evaluation.md, query by query."""
    total = 0.0
    for i, t, e in zip(moving.tolist(), target.tolist(), moved, strict=True):
        everything = range(len(gallery))
        aim = gallery.embeddings[t]
        if name in ("CA+", "CA-"):
            base, own = [d(aim, gallery.embeddings[j]) for j in everything], d(aim, e)
        else:
            base, own = [d(e, gallery.embeddings[j]) for j in everything], d(e, aim)
        same = [base[j] for j in others(gallery, *([] if published else [i])) if gallery.labels[j] == gallery.labels[i]]
        other = [base[j] for j in everything if gallery.labels[j] != gallery.labels[i]]
        total += {
            "CA+": lambda own=own, base=base: np.mean([max(0, own - b) for b in base]),
            "CA-": lambda own=own, base=base: np.mean([max(0, b - own) for b in base]),
            "QA+": lambda own=own, base=base: np.mean([max(0, own - b) for b in base]),
            "QA-": lambda own=own, base=base: np.mean([max(0, b - own) for b in base]),
            "GTT": lambda own=own, base=base: np.mean([max(0, b - own) for b in base]),
            "TMA": lambda e=e, aim=aim: 1 - float(e.double() @ aim.double()),
            "ES": lambda own=own: -own,
            "GTM": lambda own=own: own,
            "LTM": lambda same=same, other=other: max(0, max(other) - min(same)),
        }[name]()
    return total


@pytest.mark.parametrize("name", STRICT)
def test_every_loss_is_the_table_s(name):
    gallery, moving = toy_gallery(), torch.tensor([3, 8, 15, 22])
    target = STRICT[name].draw(gallery, moving, draw())
    moved = shaken(gallery, moving)
    got = STRICT[name].objective(AttackBatch(gallery, moving, target))(moved).sum()
    assert got.item() == pytest.approx(loss_by_hand(name, gallery, moving, target, moved), rel=1e-4)


def test_the_published_ltm_counts_the_query_among_its_matches():
    gallery, moving = toy_gallery(), torch.tensor([3, 8, 15, 22])
    moved = shaken(gallery, moving, size=0.1)
    attacked = AttackBatch(gallery, moving, moving)
    got = PUBLISHED["LTM"].objective(attacked)(moved).sum().item()
    assert got == pytest.approx(loss_by_hand("LTM", gallery, moving, moving, moved, published=True), rel=1e-4)
    assert got > STRICT["LTM"].objective(attacked)(moved).sum().item()


@pytest.mark.parametrize("name", STRICT)
def test_every_outcome_is_measured_as_the_table_says(name):
    gallery, moving = toy_gallery(), torch.tensor([3, 8, 15, 22, 27])
    target = STRICT[name].draw(gallery, moving, draw())
    moved = shaken(gallery, moving)
    measured = STRICT[name].measure(AttackBatch(gallery, moving, target), moved)
    for row, (i, t) in enumerate(zip(moving.tolist(), target.tolist(), strict=True)):
        e, rest = moved[row], others(gallery, i, t)
        aim, near = gallery.embeddings[t], lambda a, j: d(a, gallery.embeddings[j])
        results = ranked(gallery, i, e)
        hit = 100 * float(gallery.labels[results[0]] == gallery.labels[i])
        if name.startswith("CA"):
            expected = {name: 100 * sum(near(aim, j) < d(aim, e) for j in rest) / 28}
        elif name.startswith("QA"):
            expected = {name: 100 * sum(near(e, j) < d(e, aim) for j in rest) / 28}
        elif name == "TMA":
            expected = {"TMA": float(e.double() @ aim.double())}
        elif name == "ES":
            expected = {"ES:D": d(e, gallery.embeddings[i]), "ES:R": hit}
        elif name == "GTT":
            expected = {"GTT": 100 * float(t in results[:4])}
        else:
            expected = {name: hit}
        assert {key: float(values[row]) for key, values in measured.items()} == pytest.approx(expected, abs=1e-4)


def arena(name, table=STRICT):
    """A fragile model, its own gallery of images, and the attacked of one attack."""
    model, images = FlatModel(), random_images(30)
    embeddings = model(images).detach()
    # Classes that the model tells apart: the quadrant of the first two dimensions.
    labels = 2 * (embeddings[:, 0] > 0).long() + (embeddings[:, 1] > 0).long()
    gallery = Gallery(embeddings, labels)
    attack = table[name]
    return model, images, attack, AttackBatch(gallery, ALL, attack.draw(gallery, ALL, draw()))


BUDGET = Budget(0.2, 0.05, 10)


@pytest.mark.parametrize(
    ("name", "number", "wanted"),
    [
        ("CA+", "CA+", -1),
        ("CA-", "CA-", 1),
        ("QA+", "QA+", -1),
        ("QA-", "QA-", 1),
        ("TMA", "TMA", 1),
        ("ES", "ES:D", 1),
        ("ES", "ES:R", -1),
        ("LTM", "LTM", -1),
        ("GTM", "GTM", -1),
        ("GTT", "GTT", -1),
    ],
)
def test_every_attack_moves_its_number_where_it_wants(name, number, wanted):
    model, images, attack, attacked = arena(name)
    before = attack.measure(attacked, attacked.gallery.embeddings)[number].mean()
    after = attack.run(model, images, attacked, BUDGET)[number].mean()
    assert wanted * float(after - before) > 0


def test_es_moves_although_the_shift_has_no_gradient_where_it_starts():
    model, images, attack, attacked = arena("ES")
    still = perturb(model, images, lambda moved: -distances(moved, attacked.target_embedding).sum(), BUDGET)
    assert torch.equal(still, images)
    assert attack.run(model, images, attacked, BUDGET)["ES:D"].min() > 0.05


def robrank_es(model, images, epsilon, step_size, steps):
    """ES as RobRank's attack loop computes it: the images, and its last forward pass, which it reports the shift of."""
    clean, moved = model(images).detach(), images.clone()
    for iteration in range(steps):
        leaf = moved.clone().requires_grad_()
        output = model(leaf)
        noise = 1e-7 if iteration == 0 else 0.0
        loss = -((output - (clean + noise) + 1e-6) ** 2).sum(dim=1).sqrt().sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        size = step_size if steps > 1 else epsilon
        moved = moved - size * gradient.sign()
        moved = torch.maximum(torch.minimum(moved, images + epsilon), images - epsilon).clamp(0, 1)
    return moved, ((output.detach() - clean + 1e-6) ** 2).sum(dim=1).sqrt()


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_published_es_is_robranks(steps):
    model, images, attack, attacked = arena("ES", PUBLISHED)
    budget = EvaluationSettings(protocol="published", epsilon=0.2, step_size=0.05, steps=steps).budget(0.2)
    moved, shift = robrank_es(model, images, 0.2, 0.05, steps)
    reported = attack.run(model, images, attacked, budget)
    torch.testing.assert_close(reported["ES:D"], shift)
    torch.testing.assert_close(reported["ES:R"], attack.measure(attacked, model(moved).detach())["ES:R"])
    perturbed = perturb(model, images, attack.objective(attacked), budget)
    torch.testing.assert_close(perturbed, moved)
    assert not torch.allclose(reported["ES:D"], attack.measure(attacked, model(moved).detach())["ES:D"])


def test_the_published_pool_of_near_targets_is_rounded_down():
    gallery = Gallery(
        torch.nn.functional.normalize(torch.randn(290, 4, generator=draw()), dim=1), torch.arange(290) % 9
    )
    queries = torch.arange(290)
    for name in ("CA-", "QA-"):
        pools = {}
        for protocol, table in (("strict", STRICT), ("published", PUBLISHED)):
            drawn = torch.stack([table[name].draw(gallery, queries, draw(seed)) for seed in range(60)])
            pools[protocol] = max(len(drawn[:, query].unique()) for query in range(20))
        assert pools == {"strict": 3, "published": 2}, "1 % of 290 is 2.9"
