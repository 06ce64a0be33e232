"""The defenses that COLO-TRIDE is compared with, and its ablations."""

import math
from dataclasses import replace

import pytest
import torch

from colotride.defenses import DEFENSES, build_defense
from colotride.defenses.act import Act, ActSettings
from colotride.defenses.assist import Assist, AssistSettings
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.est import Est, EstSettings
from colotride.defenses.hardness import hardness_objective
from colotride.defenses.hardness_manipulation import (
    HardnessManipulation,
    HardnessManipulationSettings,
    gradual_destination,
)
from colotride.defenses.naive import Naive, NaiveSettings, NaiveTride, NaiveTrideSettings
from tests.defenses.scenes import (
    EARLY,
    LATE,
    MARGIN,
    PAIRS,
    RECIPE,
    STRONG,
    collapsing,
    distances_of,
    draw,
    healthy,
    step,
    triplets_at,
    triplets_of,
)
from tests.toys import FlatModel, chord, on_circle


def perturbation(defense, batch, info=LATE):
    return defense.perturbation(triplets_of(batch), {"collapseness": torch.tensor(-0.1)}, info, draw())


def moved_parts(batch, images):
    """Which of A, P and N are not the clean images any more."""
    clean = triplets_of(batch)
    starts = (clean.anchor, clean.positive, clean.negative)
    return [not torch.equal(now, start) for now, start in zip(images, starts, strict=True)]


@pytest.mark.parametrize(
    ("name", "values", "moves"),
    [
        ("natural", {}, [False, False, False]),
        ("naive", {}, [True, True, True]),
        ("naive-tride", {"phases": "candidates"}, [False, True, True]),
        ("naive-tride", {"phases": "anchor"}, [True, False, False]),
        ("est", {}, [True, True, True]),
        ("act", {}, [False, True, True]),
        ("hm", {"intra_class_coefficient": 0.0}, [True, True, True]),
        ("colo-tride", {"phases": "candidates"}, [False, True, True]),
        ("colo-tride", {"phases": "anchor"}, [True, False, False]),
        ("assist", {"phases": "anchor", "when": "always"}, [True, False, False]),
    ],
)
def test_every_defense_moves_its_own_parts_and_trains_on_them(name, values, moves):
    defense = build_defense(DEFENSES[name].Settings(**values), RECIPE)
    batch = healthy()
    loss, diagnostics, images, _ = step(batch, defense)
    assert moved_parts(batch, images) == moves
    moving = {(False,) * 3: None, (True,) * 3: "all", (False, True, True): "candidates", (True, False, False): "anchor"}
    label = moving[tuple(moves)]
    assert [key for key in diagnostics if key.startswith("shift")] == ([] if label is None else [f"shift_{label}"])
    if not (name == "colo-tride" and moves[0]) and not (name in ("naive-tride", "assist") and moves[0]):
        d_ap, d_an = distances_of(*images)
        torch.testing.assert_close(loss, (d_ap - d_an + MARGIN).clamp_min(0).mean())


@pytest.mark.parametrize("sigma", [1.0, -1.0])
@pytest.mark.parametrize("moving", ["anchor", "candidates", "all"])
def test_the_mean_hardness_and_the_sign_of_its_first_step(sigma, moving):
    triplets = triplets_at([0, 100], [20, 90], [60, 190])
    points = {"anchor": (0, 100), "candidates": (20, 90, 60, 190), "all": (0, 100, 20, 90, 60, 190)}[moving]
    embeddings = on_circle(*points).requires_grad_()
    value = hardness_objective(triplets, moving, sigma)(embeddings)
    mean = ((chord(20) - chord(60)) + (chord(10) - chord(90))) / 2
    assert value.item() == pytest.approx(-sigma * mean, abs=1e-5)
    value.backward()
    moved = torch.nn.functional.normalize(embeddings.detach() - 0.01 * embeddings.grad, dim=1)
    after = hardness_objective(triplets, moving, 1.0)(moved)
    assert (-after.item() > mean) == (sigma > 0)


def test_naive_candidate_perturbation_runs_far_past_the_point_where_colo_stops():
    reached = {}
    for name, defense in (
        ("naive", NaiveTride(NaiveTrideSettings(phases="candidates"), STRONG)),
        ("colo", ColoTride(ColoTrideSettings(phases="candidates"), STRONG)),
    ):
        _, _, images, _ = step(healthy(), defense)
        d_ap, d_an = distances_of(*images)
        reached[name] = (d_ap - d_an).mean().item()
    assert 0 <= reached["colo"] < 0.1
    assert reached["naive"] > 0.5


def test_naive_adversaries_attack_a_collapsing_batch_too():
    batch = collapsing()
    clean = triplets_of(batch)
    before = (clean.anchor_positive - clean.anchor_negative).mean()
    _, diagnostics, _, _ = step(batch, Naive(NaiveSettings(), RECIPE))
    assert before > 0
    assert diagnostics["perturbed_hardness"] > before


def test_est_shifts_every_image_from_a_random_start_because_its_gradient_vanishes_at_rest():
    batch = healthy()
    chosen = perturbation(Est(EstSettings(), RECIPE), batch)
    clean = triplets_of(batch)
    everything = torch.cat([clean.anchor_embedding, clean.positive_embedding, clean.negative_embedding])
    at_rest = everything.clone().requires_grad_()
    chosen.objective(at_rest).backward()
    assert torch.equal(at_rest.grad, torch.zeros_like(at_rest))
    away = on_circle(*range(24))
    away = torch.cat([away, torch.zeros(24, 3)], dim=1)
    expected = -sum(float((a - b).norm()) for a, b in zip(away, everything, strict=True))
    assert chosen.objective(away).item() == pytest.approx(expected, rel=1e-5)
    assert 0 < (chosen.start - torch.cat([clean.anchor, clean.positive, clean.negative])).abs().max() <= 0.02
    _, _, images, _ = step(batch, Est(EstSettings(), RECIPE))
    model = FlatModel()
    shifts = (model(torch.cat(images)) - everything).norm(dim=1)
    assert shifts.min() > 0.05


def test_act_pulls_positives_and_negatives_together():
    batch = healthy()
    clean = triplets_of(batch)
    chosen = perturbation(Act(ActSettings(), RECIPE), batch)
    candidates = torch.cat([clean.positive_embedding, clean.negative_embedding])
    before = (clean.positive_embedding - clean.negative_embedding).norm(dim=1).mean()
    assert chosen.objective(candidates).item() == pytest.approx(before.item(), rel=1e-5)
    _, _, (_, positive, negative), _ = step(batch, Act(ActSettings(), RECIPE))
    model = FlatModel()
    assert (model(positive) - model(negative)).norm(dim=1).mean() < before - 0.1


def test_the_destination_of_hardness_manipulation_rises_as_the_loss_falls():
    got = [gradual_destination(torch.tensor(loss), 0.2).item() for loss in (0.5, 0.2, 0.1, 0.0)]
    assert got == pytest.approx([-0.2, -0.2, -0.1, 0.0])


def hm(coefficient=0.0, context=RECIPE):
    return HardnessManipulation(HardnessManipulationSettings(intra_class_coefficient=coefficient), context)


def test_hardness_manipulation_minimises_the_squared_way_to_its_destination():
    defense = hm()
    defense.after(torch.tensor(0.05))
    triplets = triplets_at([0, 100], [20, 90], [60, 130])
    objective = defense.perturbation(triplets, {}, LATE, draw()).objective
    hardness = [chord(20) - chord(60), chord(10) - chord(30)]
    expected = sum(max(0.0, -0.05 - h) ** 2 for h in hardness) / 2
    assert objective(on_circle(0, 100, 20, 90, 60, 130)).item() == pytest.approx(expected, rel=1e-4)
    assert objective(on_circle(0, 100, 60, 130, 20, 90)).item() == 0, "hard enough: nothing moves"


def test_hardness_manipulation_carries_the_previous_loss_and_gives_it_to_a_checkpoint():
    defense = hm()
    assert defense.state_dict()["previous_loss"].item() == pytest.approx(MARGIN), "the weakest adversary comes first"
    loss, _, _, _ = step(healthy(), defense)
    assert defense.state_dict()["previous_loss"].item() == pytest.approx(loss.item())
    other = hm()
    other.load_state_dict(defense.state_dict())
    assert torch.equal(step(healthy(), other)[0], step(healthy(), defense)[0])


def test_the_intra_class_structure_keeps_a_perturbed_anchor_nearer_than_another_image():
    batch = healthy()
    plain, _, _, _ = step(batch, hm(0.0))
    loss, _, images, model = step(batch, hm(0.5))
    anchor, clean_anchor, clean_positive = (model(part) for part in (images[0], batch.anchor, batch.positive))
    shift, other = (clean_anchor - anchor).norm(dim=1), (clean_anchor - clean_positive).norm(dim=1)
    expected = 0.5 * (shift - other).clamp_min(0).mean()
    assert expected > 0
    assert (loss - plain).item() == pytest.approx(expected.item(), rel=1e-4)


def test_assist_part_moves_nothing_while_the_model_is_healthy_and_assists_while_it_collapses():
    defense = Assist(AssistSettings(phases="candidates"), RECIPE)
    _, told, images, _ = step(healthy(), defense)
    assert moved_parts(healthy(), images) == [False, False, False]
    assert told["assist"] == 0
    _, told, images, _ = step(collapsing(), defense)
    clean = triplets_of(collapsing())
    d_ap, d_an = distances_of(*images)
    assert told["assist"] == 1
    assert (d_ap - d_an).mean() < (clean.anchor_positive - clean.anchor_negative).mean()


@pytest.mark.parametrize("phases", ["candidates", "anchor"])
def test_assist_full_makes_every_batch_easier(phases):
    batch = healthy()
    clean = triplets_of(batch)
    _, told, _, _ = step(batch, Assist(AssistSettings(phases=phases, when="always"), RECIPE), EARLY)
    assert told["assist"] == 1
    assert told["perturbed_hardness"] < (clean.anchor_positive - clean.anchor_negative).mean() - 0.01


def test_the_cosine_metric_is_half_the_squared_chord_everywhere():
    euclidean, cosine = (triplets_at([0, 0], [20, 40], [60, 90], metric) for metric in ("euclidean", "cosine"))
    torch.testing.assert_close(cosine.anchor_positive, euclidean.anchor_positive.square() / 2)
    batch = healthy()
    context = replace(RECIPE, metric="cosine")
    loss, told, images, _ = step(batch, ColoTride(ColoTrideSettings(phases="candidates"), context))
    d_ap, d_an = (values.square() / 2 for values in distances_of(*images))
    torch.testing.assert_close(loss, (d_ap - d_an + MARGIN).clamp_min(0).mean(), atol=1e-5, rtol=1e-4)
    assert told["distance_anchor_negative"].item() == pytest.approx(
        float((triplets_of(batch).anchor_negative.square() / 2).mean()), rel=1e-4
    )


def test_multi_similarity_can_take_the_place_of_the_triplet_loss_under_colo_tride():
    from colotride.losses import multi_similarity_loss

    batch = healthy()
    context = replace(RECIPE, loss="multi-similarity")
    loss, _, images, _ = step(batch, ColoTride(ColoTrideSettings(phases="candidates"), context))
    embeddings = FlatModel()(torch.cat(images))
    torch.testing.assert_close(loss, multi_similarity_loss(embeddings, triplets_of(batch).labels))
    assert len(embeddings) == 3 * PAIRS


def test_sizes_of_all_losses_are_finite():
    for name, kind in DEFENSES.items():
        loss, told, _, _ = step(healthy(), build_defense(kind.Settings(), RECIPE))
        assert math.isfinite(loss.item()), name
        assert all(math.isfinite(value.item()) for value in told.values()), name
