import pytest
import torch

from colotride.defenses import DEFENSES, Batch, StepInfo, build_defense
from colotride.distributed.shards import ProcessGroup, Shard
from colotride.errors import ConfigurationError
from colotride.presets import with_defense
from colotride.randomness import generator
from colotride.training.trainer import Trainer, defense_context
from tests.process_groups import in_processes
from tests.toys import FlatModel, random_images
from tests.training.test_trainer import CPU, images, small, weights

PAIRS = 11
"""Not a multiple of two or three: one process has more than another."""

VARIANTS = [
    *((name, {}) for name in DEFENSES),
    ("natural", {"training.loss": "multi-similarity"}),
    ("colo-tride-relative", {"training.clean_weight": 0.3}),
    ("colo-tride-relative", {"training.weight_perturbation": 0.1}),
    ("hm", {"training.clean_weight": 0.3, "training.weight_perturbation": 0.1}),
    ("hm", {"training.clean_weight": 0.3}),
    ("colo-tride", {"training.metric": "cosine", "collapseness.weight_gradient": "through"}),
]


def gradients(group, name, changes, step):
    """Loss, diagnostics and gradient of one batch, divided among the processes of a group."""
    config = with_defense(small(), name).with_values(
        {"pgd.steps": 3, "pgd.epsilon": 0.2, "pgd.step_size": 0.05} | changes
    )
    model = FlatModel(dim=8)
    defense = build_defense(config.defense, defense_context(config))
    labels = torch.arange(PAIRS) % 3
    batch = Batch(random_images(PAIRS, seed=1), random_images(PAIRS, seed=2), labels, group)
    loss, diagnostics = defense.batch_loss(model, batch, StepInfo(2, 4, step), generator(0, "mining"))
    loss.backward()
    held = [one.grad for one in model.parameters()]
    group.all_reduce_sum(held)
    return float(loss.detach()), {key: float(value.detach()) for key, value in diagnostics.items()}, held


def all_gradients(group):
    return [gradients(group, name, changes, step) for name, changes in VARIANTS for step in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_a_batch_divided_among_processes_has_the_same_loss_decisions_and_gradient(tmp_path, size):
    alone = all_gradients(ProcessGroup())
    for divided in in_processes(all_gradients, size, tmp_path):
        for (loss, seen, held), (expected_loss, expected, whole) in zip(divided, alone, strict=True):
            assert loss == pytest.approx(expected_loss, rel=1e-5)
            assert seen == pytest.approx(expected, rel=1e-4, abs=1e-6)
            for one, other in zip(held, whole, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def train_in_group(group, config, directory, changes):
    asked = iter(range(1000))
    trainer = Trainer(config, images(), images(seed=1), device=CPU, directory=directory, group=group)
    stop = changes.get("stop")
    outcome = trainer.run(should_stop=lambda: next(asked) == stop and group.rank == group.size - 1)
    return weights(trainer), [(one.diagnostics, one.validation) for one in outcome.history], outcome.status


@pytest.mark.slow
def test_processes_train_one_model_as_one_process_would_and_stop_and_resume_together(tmp_path):
    config = small(**{"training.epochs": 2})
    _, expected, _ = train_in_group(ProcessGroup(), config, None, {})
    folders = [tmp_path / name for name in ("one", "two", "run", "interrupted")]
    for folder in folders:
        folder.mkdir()
    (first, course, _), (second, other_course, _) = in_processes(train_in_group, 2, folders[0], config, folders[2], {})
    assert torch.equal(first, second)
    assert course == other_course
    for (seen, scores), (wanted, wanted_scores) in zip(course, expected, strict=True):
        # The signs of PGD's steps amplify another order of summation over the batches; one batch is compared above.
        assert seen["loss"] == pytest.approx(wanted["loss"], rel=0.05)
        assert seen["collapseness"] == pytest.approx(wanted["collapseness"], abs=5e-3)
        assert scores.keys() == wanted_scores.keys()
    # Only the last rank asks to stop, inside the second epoch: both do, and both go on from the same checkpoint.
    stopped = in_processes(train_in_group, 2, folders[1], config, folders[3], {"stop": 4})
    assert [status for _, _, status in stopped] == ["interrupted", "interrupted"]
    (again, resumed_course, _), _ = in_processes(train_in_group, 2, folders[1], config, folders[3], {})
    assert torch.equal(again, first)
    assert resumed_course == course


def test_every_pair_belongs_to_one_process():
    for pairs in range(3, 12):
        shards = [Shard(pairs, ProcessGroup(rank, 3)) for rank in range(3)]
        assert [pair for shard in shards for pair in range(pairs)[shard.own]] == list(range(pairs))
        assert max(shards[0].counts) - min(shards[0].counts) <= 1


def test_more_processes_than_pairs_are_refused():
    with pytest.raises(ConfigurationError, match="9 workers cannot share a batch of 8 pairs"):
        Trainer(small(), images(), None, device=CPU, group=ProcessGroup(0, 9))


class Counting:
    """An image set that remembers which images were read."""

    def __init__(self, whole):
        self._whole, self.labels, self.name, self.read = whole, whole.labels, whole.name, []

    def __len__(self):
        return len(self._whole)

    def pixels(self, indices):
        self.read.append(len(indices))
        return self._whole.pixels(indices)


def count_reads(group, pairs):
    counting = Counting(images(count=96))
    config = small(**{"data.pairs_per_batch": pairs, "data.pairs_per_epoch": pairs, "training.epochs": 1})
    Trainer(config, counting, None, device=CPU, group=group).run()
    return counting.read


@pytest.mark.slow
def test_a_process_reads_its_own_pairs_and_the_images_its_triplets_need_but_not_the_whole_batch(tmp_path):
    one_image, alone = count_reads(ProcessGroup(), 24)
    assert (one_image, alone) == (1, 48), "the number of channels, then a batch"
    for reads in in_processes(count_reads, 3, tmp_path, 24):
        assert reads[1:] == [16, 16], "own anchors and positives, then the parts of own triplets"


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_first_pairs_are_the_same_in_every_process_whether_it_holds_them_all_or_reads_them(rank):
    anchor, positive = random_images(PAIRS, seed=1), random_images(PAIRS, seed=2)
    whole = Batch(anchor, positive, torch.arange(PAIRS) % 3, ProcessGroup(rank, 3))
    own = Batch(*whole.own_pairs(), whole.labels, whole.group, lambda places: torch.cat([anchor, positive])[places])
    places = torch.arange(2 * PAIRS)
    assert torch.equal(own.images_at(places), whole.images_at(places))
    some, same = whole.first_pairs(2), own.first_pairs(2)
    assert some.labels.tolist() == same.labels.tolist() == [0, 1, 1, 2, 2, 0]
    for one, other in zip(some.own_pairs(), same.own_pairs(), strict=True):
        assert len(one) == 2
        assert torch.equal(one, other)
    assert torch.equal(some.images_at(torch.arange(12)), same.images_at(torch.arange(12)))
    assert whole.first_pairs(PAIRS) is whole
