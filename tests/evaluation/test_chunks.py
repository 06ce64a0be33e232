"""Chunks of an evaluation may be done anywhere, kept, and taken up again."""

import pytest
import torch

from colotride.errors import DataError
from colotride.evaluation import chunks as evaluation_chunks
from colotride.evaluation.chunks import Chunk, ChunkStore, Values, in_process
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.settings import EvaluationSettings
from tests.evaluation.galleries import toy_images
from tests.toys import FlatModel

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SETTINGS = EvaluationSettings(steps=3, epsilon=0.1, step_size=0.04, batch_size=4, bootstrap=20)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(evaluation_chunks, "BATCHES_PER_CHUNK", 2)


def run(images=None, model=None, **options):
    return evaluate(model or FlatModel(), images or toy_images(), SETTINGS, image_size=2, seed=0, device=CPU, **options)


class Breaking:
    """Images of which one cannot be read from a certain reading on."""

    def __init__(self, allowed):
        self.images, self.left = toy_images(), allowed

    def __getattr__(self, name):
        return getattr(self.images, name)

    def __len__(self):
        return len(self.images)

    def pixels(self, indices):
        self.left -= 1
        if self.left < 0:
            raise DataError("image 7.jpg cannot be decoded")
        return self.images.pixels(indices)


def equal(one, other):
    assert one.scores() == other.scores()
    assert one.intervals == other.intervals
    for name, values in one.per_query.items():
        for what, each in values.items():
            assert torch.equal(each, other.per_query[name][what]), (name, what)


def test_chunks_in_another_order_and_place_give_the_same_numbers():
    model, images, seen = FlatModel(), toy_images(), []

    def backwards(work, plan, chunks):
        for chunk in reversed(chunks):
            seen.append(chunk)
            yield chunk, work(plan, chunk, model, images)

    equal(run(executor=backwards), run())
    assert len(seen) == 9 * 4, "30 queries in chunks of 8 for each of nine attacks"


@pytest.mark.parametrize("allowed", [9, 40, 75])
def test_an_interrupted_evaluation_resumes_to_the_same_numbers_without_doing_chunks_again(tmp_path, allowed):
    with pytest.raises(DataError, match=r"7\.jpg"):
        run(Breaking(allowed), partial_results=tmp_path)
    kept = len(list(tmp_path.glob("*/*.safetensors")))
    assert kept == (allowed - 8) // 2, "the gallery is read in 8 batches, a chunk in 2"
    done = []
    model, images = FlatModel(), toy_images()

    def counting(work, plan, chunks):
        done.extend(chunks)
        yield from in_process(model, images)(work, plan, chunks)

    equal(run(partial_results=tmp_path, resume=True, executor=counting), run())
    assert len(done) == 36 - kept


def test_without_resume_nothing_is_taken_over(tmp_path):
    run(partial_results=tmp_path)
    done = []

    def counting(work, plan, chunks):
        done.extend(chunks)
        yield from in_process(FlatModel(), toy_images())(work, plan, chunks)

    run(partial_results=tmp_path, executor=counting)
    assert len(done) == 36


def test_chunks_of_another_model_are_never_taken_over(tmp_path):
    run(partial_results=tmp_path)
    other = FlatModel(seed=1)
    equal(run(model=other, partial_results=tmp_path, resume=True), run(model=other))


def test_half_a_chunk_on_disk_counts_as_none(tmp_path):
    store, chunk = ChunkStore(tmp_path, "0" * 64), Chunk("CA+", 0, 2)
    values = Values({"CA+": torch.tensor([1.0, 2.0])}, {"CA+": torch.tensor([3.0, 4.0])})
    assert store.load(chunk) is None
    store.save(chunk, values)
    again = store.load(chunk)
    assert torch.equal(again.before["CA+"], values.before["CA+"])
    assert torch.equal(again.after["CA+"], values.after["CA+"])
    file = store.folder / f"{chunk.name}.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    assert store.load(chunk) is None


def test_a_strong_curve_is_split_and_resumed_as_any_other_evaluation(tmp_path):
    settings = SETTINGS.with_values({"protocol": "strong", "steps": 2, "epsilon": [0.05, 0.1], "norm": "l2"})
    options = {"image_size": 2, "seed": 0, "device": CPU}
    model, images, done = FlatModel(), toy_images(), []
    whole = evaluate(model, images, settings, **options)

    def backwards(work, plan, chunks):
        for chunk in reversed(chunks):
            done.append(chunk)
            yield chunk, work(plan, chunk, model, images)

    with pytest.raises(DataError, match=r"7\.jpg"):
        evaluate(model, Breaking(60), settings, partial_results=tmp_path, **options)
    kept = len(list(tmp_path.glob("*/*.safetensors")))
    assert kept == (60 - 8) // 2
    resumed = evaluate(model, images, settings, partial_results=tmp_path, resume=True, executor=backwards, **options)
    assert len(done) == 2 * 36 - kept
    equal(resumed, whole)
    assert (resumed.curve, resumed.convergence) == (whole.curve, whole.convergence)
