"""A defense's whole step, watched through the model: what was embedded, what moved, and the loss that came out."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from colotride.defenses import Batch, CollapsenessSettings, StepInfo
from colotride.defenses.colo_tride import ColoTride, ColoTrideSettings
from colotride.defenses.hardness_manipulation import HardnessManipulation, HardnessManipulationSettings
from colotride.defenses.natural import Natural, NaturalSettings
from colotride.errors import DataError
from colotride.geometry import collapseness
from colotride.losses import top_ranked_triplet_loss
from colotride.pgd_settings import PGDSettings
from tests.defenses.scenes import (
    EARLY,
    LATE,
    MARGIN,
    PAIRS,
    PGD,
    RECIPE,
    STRONG,
    Watched,
    collapsing,
    distances_of,
    draw,
    healthy,
    step,
    triplets_of,
)
from tests.toys import FlatModel


def colo(phases="alternate", **values):
    return ColoTride(ColoTrideSettings(phases=phases, **values), RECIPE)


def test_natural_training_minimises_the_triplet_loss_of_clean_triplets():
    batch = healthy()
    loss, _, (anchor, positive, negative), _ = step(batch, Natural(NaturalSettings(), RECIPE), EARLY)
    triplets = triplets_of(batch)
    assert torch.equal(anchor, batch.anchor)
    assert torch.equal(positive, batch.positive)
    assert torch.equal(negative, triplets.negative)
    d_ap, d_an = distances_of(anchor, positive, negative)
    torch.testing.assert_close(loss, (d_ap - d_an + MARGIN).clamp_min(0).mean())


def test_cap_moves_the_candidates_and_trains_on_them():
    batch = healthy()
    loss, diagnostics, (anchor, positive, negative), _ = step(batch, colo("candidates"), LATE)
    clean = triplets_of(batch)
    assert torch.equal(anchor, batch.anchor)
    for moved, start in ((positive, batch.positive), (negative, clean.negative)):
        shift = (moved - start).abs().amax(dim=(1, 2, 3))
        assert shift.max() <= 0.1 + 1e-6
        assert (shift > 0.015).all()
    d_ap, d_an = distances_of(anchor, positive, negative)
    torch.testing.assert_close(loss, (d_ap - d_an + MARGIN).clamp_min(0).mean())
    assert (d_ap - d_an).mean() > (clean.anchor_positive - clean.anchor_negative).mean()
    assert diagnostics["shift_candidates"] > 0
    assert diagnostics["assist"] == 0


def test_anp_moves_the_anchor_and_adds_the_top_ranked_triplet():
    batch = healthy()
    loss, diagnostics, (anchor, positive, negative), _ = step(batch, colo("anchor"), LATE)
    clean = triplets_of(batch)
    assert torch.equal(positive, batch.positive)
    assert torch.equal(negative, clean.negative)
    assert ((anchor - batch.anchor).abs().amax(dim=(1, 2, 3)) > 0.015).all()
    d_ap, d_an = (values.detach() for values in distances_of(anchor, positive, negative))
    nearest = [values.sort().values[: PAIRS // 2].mean() for values in (d_ap, d_an)]
    expected = (d_ap - d_an + MARGIN).clamp_min(0).mean() + 0.5 * (nearest[0] - nearest[1] + 0.04).clamp_min(0)
    torch.testing.assert_close(loss.detach(), expected)
    assert diagnostics["shift_anchor"] > 0


def test_the_phases_alternate_with_the_global_step():
    assert [colo().settings.phase(number) for number in range(4)] == ["candidates", "anchor", "candidates", "anchor"]
    assert [colo("anchor").settings.phase(number) for number in range(2)] == ["anchor", "anchor"]


def test_a_collapsing_batch_is_assisted_late_and_left_alone_early():
    batch = collapsing()
    clean = triplets_of(batch)
    before = (clean.anchor_positive - clean.anchor_negative).mean()
    assert before > 0, "the batch must be a hard one"
    _, late, (anchor, positive, negative), _ = step(batch, colo("candidates"), LATE)
    d_ap, d_an = distances_of(anchor, positive, negative)
    assert late["assist"] == 1
    assert (d_ap - d_an).mean() < before
    # With assist disabled the batch is attacked, and the attack has reached its goal C >= 0 before it starts.
    _, early, (_, positive, negative), _ = step(batch, colo("candidates"), EARLY)
    assert early["assist"] == 0
    assert torch.equal(positive, batch.positive)
    assert torch.equal(negative, clean.negative)


def test_the_attack_stops_at_collapseness_zero():
    defense = ColoTride(ColoTrideSettings(phases="candidates"), STRONG)
    _, _, (anchor, positive, negative), _ = step(healthy(), defense, LATE)
    d_ap, d_an = distances_of(anchor, positive, negative)
    reached = collapseness(d_ap, d_an, 0.0).item()
    assert 0 <= reached < 0.1, "60 steps could go far beyond 0"


def test_a_weak_epoch_takes_small_steps():
    ramped = PGDSettings(epsilon=0.1, step_size=0.02, steps=1, ramp="linear")
    defense = ColoTride(ColoTrideSettings(phases="anchor"), replace(RECIPE, pgd=ramped))
    batch = healthy()
    for epoch, share in ((0, 0.1), (4, 0.5), (9, 1.0)):
        _, _, (anchor, _, _), _ = step(batch, defense, StepInfo(epoch, 10, 0))
        assert (anchor - batch.anchor).abs().max().item() == pytest.approx(0.02 * share, rel=1e-4)


@pytest.mark.parametrize(
    ("defense", "moving", "trained"),
    [
        (colo("candidates"), 2 * PAIRS, 3 * PAIRS),
        (colo("anchor"), PAIRS, PAIRS),
        (HardnessManipulation(HardnessManipulationSettings(), RECIPE), 3 * PAIRS, 3 * PAIRS),
    ],
)
def test_only_what_moves_is_embedded_inside_pgd_and_nothing_is_embedded_twice(defense, moving, trained):
    *_, model = step(healthy(), defense, LATE)
    assert [len(images) for images, _ in model.passes] == [2 * PAIRS, *[moving] * PGD.steps, trained]


def test_natural_training_makes_one_pass():
    *_, model = step(healthy(), Natural(NaturalSettings(), RECIPE), LATE)
    assert [len(images) for images, _ in model.passes] == [2 * PAIRS]


MIXED = replace(RECIPE, clean_weight=0.3)


@pytest.mark.parametrize(
    "defense",
    [
        Natural(NaturalSettings(), RECIPE),
        colo("anchor"),
        HardnessManipulation(HardnessManipulationSettings(), RECIPE),
        Natural(NaturalSettings(), MIXED),
        ColoTride(ColoTrideSettings(phases="candidates"), MIXED),
        HardnessManipulation(HardnessManipulationSettings(), MIXED),
    ],
)
def test_the_pass_that_mines_trains_the_weights_as_separate_passes_do(defense):
    """The same step with a dropout layer of probability 0, which forbids the shortcut, gives the same gradients."""
    gradients, embedded = [], []
    for dropout in (nn.Identity(), nn.Dropout(0.0)):
        model = Watched().train()
        model.dropout = dropout.train()
        loss, _ = defense.batch_loss(model, healthy(), LATE, draw())
        loss.backward()
        gradients.append(model.linear.weight.grad)
        embedded.append(sum(len(images) for images, _ in model.passes))
        defense.load_state_dict({"previous_loss": torch.tensor(MARGIN)})
    assert embedded[0] < embedded[1]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("phases", "info"), [("candidates", LATE), ("anchor", LATE), ("candidates", EARLY)])
def test_a_clean_weight_mixes_the_loss_of_the_clean_triplets_with_that_of_the_perturbed_ones(phases, info):
    """With the top-ranked triplet of the perturbed anchors added to neither."""
    batch, settings = healthy(), ColoTrideSettings(phases=phases, top_ranked_coefficient=0.0)
    perturbed, *_ = step(batch, ColoTride(settings, RECIPE), info)
    mixed, *_ = step(batch, ColoTride(settings, MIXED), info)
    d_ap, d_an = distances_of(batch.anchor, batch.positive, triplets_of(batch).negative)
    clean = (d_ap - d_an + MARGIN).clamp_min(0).mean()
    assert perturbed > clean + 0.01
    torch.testing.assert_close(mixed, 0.7 * perturbed + 0.3 * clean)


def test_a_defense_that_follows_the_loss_is_told_that_of_the_perturbed_triplets_alone():
    """Neither the clean triplets' nor ICS's part of what is trained; HM's destination depends on it."""
    alone, mixed = (
        HardnessManipulation(HardnessManipulationSettings(intra_class_coefficient=weight), context)
        for weight, context in ((0.0, RECIPE), (0.5, MIXED))
    )
    losses = [step(healthy(), one)[0] for one in (alone, mixed)]
    assert losses[0] != losses[1]
    assert alone.state_dict() == mixed.state_dict()


def test_without_a_perturbation_a_clean_weight_changes_nothing_and_costs_no_pass():
    loss, _, _, model = step(healthy(), Natural(NaturalSettings(), MIXED))
    assert torch.equal(loss, step(healthy(), Natural(NaturalSettings(), RECIPE))[0])
    assert len(model.passes) == 1


def test_diagnostics_are_those_of_the_clean_batch():
    batch = healthy()
    clean = triplets_of(batch)
    _, told, _, _ = step(batch, colo(), LATE)
    d_ap, d_an = clean.anchor_positive, clean.anchor_negative
    assert told["distance_anchor_positive"].item() == pytest.approx(d_ap.mean().item())
    assert told["distance_anchor_negative"].item() == pytest.approx(d_an.mean().item())
    assert told["hardness"].item() == pytest.approx((d_ap - d_an).mean().item(), abs=1e-6)
    assert told["collapseness"].item() == pytest.approx((d_ap - d_an).mean().item(), abs=1e-6), "lambda is 0 here"
    assert told["separability"].item() == pytest.approx(((d_an.mean() - d_ap.mean()) / d_ap.mean()).item(), rel=1e-5)


def test_the_order_of_the_pairs_does_not_change_the_objective_of_a_batch():
    triplets = triplets_of(healthy())
    order = torch.randperm(PAIRS, generator=draw(7))
    factor = CollapsenessSettings(attention_factor=10.0)
    whole = factor(triplets.anchor_positive, triplets.anchor_negative)
    torch.testing.assert_close(whole, factor(triplets.anchor_positive[order], triplets.anchor_negative[order]))


def test_a_batch_of_one_class_names_its_cause():
    batch = healthy()
    with pytest.raises(DataError, match="no anchor has a negative"):
        colo().batch_loss(
            FlatModel(), Batch(batch.anchor, batch.positive, torch.zeros(PAIRS, dtype=torch.long)), LATE, draw()
        )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("term", "batch"), [("released", healthy), ("off", healthy), ("off", collapsing), ("raise", collapsing)]
)
def test_every_anchor_moves_although_the_shift_starts_at_zero(term, batch, metric):
    """The first term is saturated or absent; only the top-ranked term can move the anchors outside N_top."""
    batch = batch()
    context = replace(RECIPE, metric=metric)
    settings = ColoTrideSettings(phases="anchor", anchor_hardness_term=term, assist_disabled_fraction=1.0)
    _, diagnostics, (anchor, *_), _ = step(batch, ColoTride(settings, context))
    assert (diagnostics["collapseness"] > 0) == (batch.labels.unique().numel() == 2)
    moved = (anchor - batch.anchor).flatten(1).abs().amax(dim=1) > 1e-3
    assert moved.all(), moved


def test_without_assist_in_cap_a_collapsing_batch_stays_as_it_is():
    batch = collapsing()
    _, diagnostics, (_, positive, negative), _ = step(batch, colo("candidates", candidate_assist=False), LATE)
    clean = triplets_of(batch)
    assert diagnostics["collapseness"] > 0
    assert diagnostics["assist"] == 0
    assert torch.equal(positive, clean.positive)
    assert torch.equal(negative, clean.negative)
    # It goes on attacking a healthy one.
    batch = healthy()
    _, _, (_, positive, _), _ = step(batch, colo("candidates", candidate_assist=False), LATE)
    assert not torch.equal(positive, triplets_of(batch).positive)


def test_the_top_ranked_triplet_may_be_in_the_loss_of_every_batch():
    batch = healthy()
    plain, _, parts, _ = step(batch, colo("candidates"))
    both, _, same, _ = step(
        batch, colo("candidates", top_ranked_batches="all", top_ranked_coefficient=0.7, top_ranked_margin=1.0)
    )
    assert all(torch.equal(a, b) for a, b in zip(parts, same, strict=True))
    top = top_ranked_triplet_loss(*distances_of(*parts), 0.7, 1.0)
    assert top > 0
    torch.testing.assert_close(both, plain + top)
