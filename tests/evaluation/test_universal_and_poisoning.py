"""One change for all images, and inserted images, against closed forms and slow loops."""

import pytest
import torch
from torch import nn

from colotride.evaluation import poisoning
from colotride.evaluation.attacks import AttackBatch
from colotride.evaluation.gallery import Gallery
from colotride.evaluation.poisoning import (
    choose_carriers,
    entry_distances,
    groups,
    poison_objective,
    poisoned_results,
    poisoning_measurement,
)
from colotride.evaluation.universal import changed_queries, universal_measurement, universal_perturbation
from colotride.pgd_settings import Budget
from tests.evaluation.galleries import d, others, ranked, shaken, toy_gallery

WEIGHTS = torch.linspace(-1, 1, 48).view(3, 4, 4)


class Angle(nn.Module):
    """The image's embedding turns on a circle, by its inner product with fixed weights."""

    def forward(self, images):
        angle = ((images - 0.5) * WEIGHTS).flatten(1).sum(dim=1)
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def circle(angles, labels):
    """Images of given angles, and their gallery."""
    images = 0.5 + torch.tensor(angles)[:, None, None, None] * WEIGHTS / WEIGHTS.square().sum()
    return images, Gallery(Angle()(images), torch.tensor(labels))


def two_arcs():
    """Two classes side by side, so that one turn makes all queries of the first lose their matches."""
    # Gaps that grow, so that the nearest match of all but the first lies behind it; between two equally near ones rounding
    # would decide in which direction the first step goes.
    first = -0.02 + 0.04 * torch.linspace(0, 1, 8).square()
    angles = [*first.tolist(), *torch.linspace(0.4, 0.44, 8).tolist()]
    return circle(angles, [0] * 8 + [1] * 8)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.012), ("l2", 0.07)])
def test_on_a_linear_angle_the_universal_change_is_the_exact_worst_one(norm, epsilon):
    """Every query of the first class turns by the same angle; its largest turn is eps |w|_1 (linf) or eps |w|_2."""
    images, gallery = two_arcs()
    queries = torch.arange(8)

    def batches():
        for part in queries.split(3):
            yield images[part], AttackBatch(gallery, part, part)

    change = universal_perturbation(Angle(), batches, Budget(epsilon, epsilon / 4, 12, norm))
    turn = float((change * WEIGHTS).sum())
    most = epsilon * float(WEIGHTS.abs().sum() if norm == "linf" else WEIGHTS.norm())
    assert turn == pytest.approx(most, rel=0.02)
    after = changed_queries(Angle(), batches, change)
    assert (after["R@1 before"], after["R@1 after"]) == (100, 0)
    assert after["mean shift"] == pytest.approx(2 * torch.tensor(turn / 2).sin().item(), abs=1e-4)


def test_a_random_change_of_the_same_size_does_less():
    images, gallery = two_arcs()

    def batches(rows):
        return lambda: [(images[rows], AttackBatch(gallery, rows, rows))]

    trained, judged = batches(torch.arange(0, 8, 2)), batches(torch.arange(1, 8, 2))
    found = universal_measurement(Angle(), trained, judged, Budget(0.012, 0.003, 12), seed=0)
    seen, unseen, random = found.rows.values()
    assert list(found.rows) == ["4 queries it was trained on", "4 other queries", "random change, other queries"]
    assert (seen["R@1 after"], unseen["R@1 after"], random["R@1 after"]) == (0, 0, 100)
    assert found.calls == 4 * 13 + 2 * 4


def test_poisoned_results_are_those_of_a_slow_search():
    gallery, queries = toy_gallery(), torch.arange(30)
    poisons = shaken(gallery, torch.tensor([2, 9]), size=0.2)
    found = poisoned_results(gallery, poisons, queries)
    for query in range(30):
        nearest = min(d(gallery.embeddings[query], poison) for poison in poisons)
        before = sum(d(gallery.embeddings[query], gallery.embeddings[j]) < nearest for j in others(gallery, query))
        assert float(found["found"][query]) == (100 if before < poisoning.FIRST_RESULTS else 0)
        first = ranked(gallery, query)[0]
        right = (
            gallery.labels[first] == gallery.labels[query]
            and d(gallery.embeddings[query], gallery.embeddings[first]) < nearest
        )
        assert float(found["R@1"][query]) == (100 if right else 0)
    assert 0 < float(found["found"].mean()) < 100


def test_a_poison_as_far_as_the_match_counts_as_found_and_takes_its_place():
    _, gallery = circle([0.0, 0.1, 2.0, 2.1], [0, 0, 1, 1])
    found = poisoned_results(gallery, gallery.embeddings[1:2], torch.tensor([0]))
    assert (float(found["found"]), float(found["R@1"])) == (100, 0)


def test_the_objective_is_the_mean_hinge_of_each_group():
    gallery = toy_gallery()
    queries, group = torch.arange(6), torch.tensor([0, 1, 1, 0, 1, 1])
    radius = entry_distances(gallery, queries)
    moved = shaken(gallery, torch.tensor([20, 21, 22]))
    losses = poison_objective(gallery.embeddings[queries], group, radius)(moved)
    for poison in range(3):
        hinges = [
            max(
                0.0,
                d(gallery.embeddings[q], moved[poison])
                - d(gallery.embeddings[q], gallery.embeddings[ranked(gallery, q)[9]]),
            )
            for q in range(6)
            if int(group[q]) == poison
        ]
        assert float(losses[poison]) == pytest.approx(sum(hinges) / max(1, len(hinges)), abs=1e-5)
    assert float(losses[2]) == 0, "a poison without queries stays where it is"


def test_poisons_that_can_reach_the_queries_are_found_by_those_they_never_saw():
    """Queries lie within 0.1 of one another; a carrier 1.2 away turns by eps |w|_1, 1.5 or 0.2, at most."""
    angles = [*torch.linspace(0, 0.1, 24).tolist(), *torch.linspace(1.2, 1.25, 24).tolist()]
    images, gallery = circle(angles, [0] * 24 + [1] * 24)
    queries = torch.arange(24)

    def measured(epsilon):
        budget = Budget(epsilon, epsilon / 400, 450)
        return poisoning_measurement(Angle(), gallery, queries, lambda places: images[places], budget, 2, seed=0)

    near, far = measured(0.06), measured(0.01)
    assert list(near.rows)[-1] == "poisons, 12 other queries"
    assert near.rows["copies without perturbation"] == {"found %": 0, "R@1": 100}
    assert near.rows["poisons, 12 other queries"]["found %"] > 60
    assert near.rows["poisons, 12 other queries"]["R@1"] < 100
    assert far.rows["poisons, 12 other queries"] == far.rows["clean gallery"] == {"found %": 0, "R@1": 100}


def test_carriers_are_no_queries_while_there_are_others():
    random = torch.Generator().manual_seed(0)
    assert set(choose_carriers(10, torch.arange(7), 3, random).tolist()) == {7, 8, 9}
    assert len(set(choose_carriers(10, torch.arange(7), 5, random).tolist())) == 5


def test_groups_are_those_that_lie_together():
    _, gallery = circle([0.0, 0.01, 0.02, 1.0, 1.01, 1.02], [0] * 6)
    found = groups(gallery.embeddings, 2, seed=1).tolist()
    assert found[:3] == [found[0]] * 3
    assert found[3:] == [1 - found[0]] * 3
