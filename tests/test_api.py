"""The library's front door, block by block as the documentation shows it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import colotride as ct
from colotride.data.splits import load_test
from colotride.defenses import DEFENSES
from colotride.defenses.pairs import paired_batch
from colotride.errors import CheckpointError, ConfigurationError, DataError, ModelError
from tests.toys import random_images

TINY = {"pgd.steps": 2, "data.pairs_per_epoch": 64, "evaluation.bootstrap": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ct.train("digits", directory=tmp_path_factory.mktemp("api") / "first", epochs=1, quick=True, overrides=TINY)


def plain_net(seed=0):
    """Somebody's module, whose embeddings are not normalised."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8))


IMAGES, LABELS = random_images(24), torch.arange(24) % 4


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("torch", "ray", "mlflow", "optuna", "plotly", "matplotlib", "faiss", "pydantic")
    code = f"import sys, colotride; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_evaluating_does_not_wait_for_torchs_compiler():
    code = "import sys, colotride.api, colotride.cli.evaluate; print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.slow
def test_training_and_evaluating_import_no_extra(tmp_path):
    code = f"""
import sys, colotride as ct
run = ct.train("digits", directory={str(tmp_path / "run")!r}, quick=True, epochs=1, overrides={TINY!r})
ct.evaluate(run, queries=4, steps=1)
print([name for name in ("ray", "mlflow", "optuna", "plotly") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there():
    assert {name: getattr(ct, name) is not None for name in ct.__all__} == dict.fromkeys(ct.__all__, True)
    assert set(ct.__all__) <= set(dir(ct))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ct.nothing


def test_a_run_is_trained_kept_and_continued(run):
    assert (run.outcome.status, len(run.outcome.history), run.config.pgd.steps) == ("finished", 1, 2)
    again = ct.train(run.config, directory=run.directory)
    assert again.outcome.history == run.outcome.history
    for name, value in run.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    by_file = ct.train(run.directory / "config.yaml", directory=run.directory)
    assert by_file.config == run.config


def test_a_run_is_evaluated_by_itself_or_its_directory(run, tmp_path):
    result = ct.evaluate(run, queries=12, steps=2)
    assert ct.evaluate(str(run.directory), queries=12, steps=2).scores() == result.scores()
    assert (result.queries, result.steps, result.epsilon) == (12, 2, 32 / 255)
    low, high = result.intervals["ARS"]
    assert low <= result.ARS <= high
    table = result.to_frame()
    assert table.loc["ARS", "value"] == result.ARS
    assert tuple(table.loc["ERS", ["low", "high"]]) == result.intervals["ERS"]
    assert list(table.index) == list(result.scores())
    bars = result.plot().axes[0].patches
    assert [bar.get_height() for bar in bars][-2:] == [result.ARS, result.ERS]
    page = result.report(tmp_path / "r.html").read_text()
    assert f"{result.ARS:.1f}" in page


def test_a_module_is_evaluated_on_tensors_arrays_and_data_sets_alike():
    net = plain_net()
    result = ct.evaluate(net, IMAGES, LABELS, epsilon=8 / 255, steps=2, bootstrap=0)
    assert (result.images, result.epsilon, result.step_size) == (24, 8 / 255, 3 / 255)
    bytes_first = (IMAGES * 255).round().byte().permute(0, 2, 3, 1).numpy()
    dataset = torch.utils.data.TensorDataset(IMAGES, LABELS)
    for images, labels in ((IMAGES.numpy(), LABELS.numpy()), (bytes_first, LABELS.tolist()), (dataset, None)):
        same = ct.evaluate(net, images, labels, epsilon="8/255", steps=2, bootstrap=0)
        assert same.scores() == result.scores()
    # A module whose embeddings are normalised already scores the same.
    unit = nn.Sequential(net, Normalise())
    assert pytest.approx(result.ARS) == ct.evaluate(unit, IMAGES, LABELS, epsilon=8 / 255, steps=2, bootstrap=0).ARS
    assert ct.evaluate(net, IMAGES, LABELS, epsilon=16 / 255, steps=2, bootstrap=0).step_size == pytest.approx(6 / 255)


class Normalise(nn.Module):
    def forward(self, embeddings):
        return functional.normalize(embeddings, dim=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": None, "labels": None}, "a module alone cannot be evaluated; give images"),
        ({"queries": 99}, "queries = 99 is more than the 24 images"),
        ({"steps": 0}, "steps = 0: "),
        ({"stepsize": 1}, "stepsize = 1: Extra inputs"),
        ({"images": 2 * IMAGES}, r"\[0, 1\]"),
        ({"labels": LABELS[:5]}, "label"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(options, message):
    with pytest.raises((ConfigurationError, DataError), match=message) as error:
        ct.evaluate(plain_net(), **({"images": IMAGES, "labels": LABELS} | options))
    assert "\n" not in str(error.value)


def test_images_are_perturbed_within_a_budget():
    net = plain_net()
    clean = net(IMAGES).detach()
    adversarial = ct.perturb(
        net, IMAGES, lambda moved: -(moved - clean).square().sum() - moved.sum(), ct.Budget(8 / 255, 1 / 255, 16)
    )
    shift = (adversarial - IMAGES).abs()
    assert shift.max() <= 8 / 255 + 1e-6
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    assert (shift.flatten(1).amax(dim=1) > 7 / 255).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENSES)
def test_every_defense_works_in_anybodys_loop(name):
    """A module that ends in no normalisation, plain SGD, shuffled labels: the loss falls, and repeats exactly."""

    def train():
        net, losses = plain_net(), []
        defense = DEFENSES[name](epsilon=0.02, step_size=0.01, steps=2, seed=3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        for step in range(40):
            loss = defense(net, IMAGES, LABELS, step=step, epoch=0, epochs=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert net.training
        assert all(parameter.requires_grad for parameter in net.parameters())
        assert {"collapseness", "hardness"} <= set(defense.diagnostics)
        return losses

    losses = train()
    assert sum(losses[-4:]) < sum(losses[:4])
    assert losses == train()


def test_a_defense_in_a_loop_is_the_trainers():
    from colotride.defenses import StepInfo
    from colotride.models import UnitEmbeddings
    from colotride.randomness import generator

    net, defense = plain_net(), ct.ColoTride(attention_factor=4, top_ranked_coefficient=0.3, miner="random", steps=3)
    assert (defense.context.collapseness.attention_factor, defense.settings.top_ranked_coefficient) == (4, 0.3)
    loss = defense(net, IMAGES, LABELS, step=1, epoch=2, epochs=9)
    again, _ = defense.batch_loss(
        UnitEmbeddings(net), paired_batch(IMAGES, LABELS), StepInfo(2, 9, 1), generator(0, "mining", 2, 1)
    )
    assert torch.equal(loss, again)


def test_pairs_are_formed_class_by_class_in_their_order():
    labels = torch.tensor([5, 3, 5, 3, 3, 5, 3, 5, 3])
    images = torch.arange(9.0).div(10).view(9, 1, 1, 1)
    batch = paired_batch(images, labels)
    places = [(round(10 * a.item()), round(10 * p.item())) for a, p in zip(batch.anchor, batch.positive, strict=True)]
    assert places == [(1, 3), (4, 6), (0, 2), (5, 7)]
    assert batch.labels.tolist() == [3, 3, 5, 5]


def test_what_a_defense_cannot_use_is_one_line():
    with pytest.raises(ConfigurationError, match=r"unknown option atention_factor \(did you mean attention_factor\?\)"):
        ct.ColoTride(atention_factor=4)
    with pytest.raises(ConfigurationError, match="steps = 0: "):
        ct.Act(steps=0)
    defense = ct.Natural()
    for images, labels, message in (
        (IMAGES, LABELS[:3], "24 images has 3 labels"),
        (IMAGES - 0.5, LABELS, r"not in \[0, 1\]"),
        (IMAGES, torch.arange(24), "class 0 has a single image in this batch"),
        (IMAGES, torch.zeros(24, dtype=torch.long), "no anchor has a negative"),
    ):
        with pytest.raises(DataError, match=message):
            defense(plain_net(), images, labels, step=0, epoch=0, epochs=1)
    with pytest.raises(ModelError, match="the model returned"):
        defense(nn.Conv2d(3, 2, 1), IMAGES, LABELS, step=0, epoch=0, epochs=1)


def test_authors_settings_are_the_defaults_of_their_defenses():
    act, colo = ct.Act(), ct.ColoTride()
    assert (act.context.pgd.steps, act.context.pgd.ramp, act.context.miner) == (32, "constant", "random")
    assert (colo.context.pgd.steps, colo.context.miner, colo.context.margin) == (16, "semi-hard", 0.2)


@pytest.fixture(scope="module")
def photographs(run, tmp_path_factory):
    """A folder of the run's test images as files, and one file that is no picture."""
    folder = tmp_path_factory.mktemp("photographs")
    pixels = load_test(run.config.data).pixels(torch.arange(12))
    for place, image in enumerate(pixels):
        (folder / "some").mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / "some" / f"{place:02}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_a_run_embeds_files_as_it_embeds_its_test_images(run, photographs):
    net = ct.load(run.directory)
    paths = sorted((photographs / "some").iterdir())
    pixels = load_test(run.config.data).pixels(torch.arange(12))
    with torch.no_grad():
        expected = run.model(pixels.float() / 255)
    torch.testing.assert_close(net.embed(paths), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(net.embed(pixels, batch_size=5), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(net.embed(str(paths[3])), expected[3:4], atol=1e-5, rtol=0)
    assert net.module(pixels.float() / 255).shape == expected.shape
    with pytest.raises(DataError, match=r"broken\.jpg cannot be decoded"):
        net.embed([photographs / "broken.jpg"])
    with pytest.raises(DataError, match="no images to embed"):
        net.embed([])


def test_tensors_of_another_size_are_resized_and_cropped_like_files(tmp_path):
    net = ct.Embedder(nn.Flatten(), image_size=4, stored_size=6, channels=3, device=torch.device("cpu"))
    big = (random_images(1, (3, 12, 12)) * 255).round().byte()
    Image.fromarray(big[0].permute(1, 2, 0).numpy()).save(tmp_path / "big.png")
    torch.testing.assert_close(net.embed(big), net.embed(tmp_path / "big.png"), atol=5e-3, rtol=0)
    assert net.embed(big).shape == (1, 48)


def test_a_runs_own_number_of_queries_is_at_most_all_of_other_images(run):
    """It was made for a larger test side; a number that is asked for is meant."""
    assert run.config.evaluation.queries == 32
    images = load_test(run.config.data).pixels(torch.arange(24))
    result = ct.evaluate(run, images, torch.arange(24) % 4, steps=1, bootstrap=0)
    assert result.queries == 24


def test_an_index_answers_with_the_nearest_pictures_and_comes_back(run, photographs, tmp_path):
    net = ct.load(run.directory)
    index = ct.Index.build(net, photographs, batch_size=5)
    assert len(index) == 12
    assert [path for path, _ in index.skipped] == [str(photographs / "broken.jpg")]
    embeddings = net.embed(index.paths)
    for place in (0, 7):
        distances = (embeddings - embeddings[place]).norm(dim=1)
        found = index.query(index.paths[place], k=5)
        assert found[0] == (index.paths[place], pytest.approx(0, abs=1e-3))
        assert [distance for _, distance in found] == pytest.approx(distances.sort().values[:5].tolist(), abs=1e-3)
        assert {path for path, _ in found} == {index.paths[one] for one in distances.argsort()[:5].tolist()}
    index.save(tmp_path / "photographs.index")
    again = ct.Index.load(tmp_path / "photographs.index", ct.load(run.directory))
    assert again.query(index.paths[4], k=3) == index.query(index.paths[4], k=3)
    assert (again.paths, again.skipped) == (index.paths, index.skipped)
    assert len(again.query(index.paths[0], k=99)) == 12


def test_an_index_of_another_model_or_a_damaged_one_is_refused(run, photographs, tmp_path):
    net = ct.load(run.directory)
    index, path = ct.Index.build(net, sorted((photographs / "some").iterdir())), tmp_path / "a.index"
    index.save(path)
    other = ct.load(run.directory)
    with torch.no_grad():
        next(other.module.parameters()).add_(1e-3)
    with pytest.raises(ModelError, match="was built with another model"):
        ct.Index.load(path, other)
    for content in (path.read_bytes()[:-200], b"", b"no index"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            ct.Index.load(path, net)
    with pytest.raises(DataError, match="is not a folder"):
        ct.Index.build(net, tmp_path / "nowhere")
    with pytest.raises(DataError, match="none of the 1 pictures can be indexed"):
        ct.Index.build(net, [photographs / "broken.jpg"])
    with pytest.raises(DataError, match="k = 0"):
        index.query(index.paths[0], k=0)


def test_a_search_without_its_extra_names_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    with pytest.raises(ConfigurationError, match=r"pip install 'colotride\[tune\]'"):
        ct.search("digits", trials=8)


def test_a_quick_run_is_small_on_every_data_set():
    from colotride import presets

    for name in ("digits", "fashion-mnist", "cub", "cars", "sop", "folder"):
        small = presets.with_quick_budget(ct.preset(name))
        images = small.training.epochs * small.data.pairs_per_epoch * small.pgd.steps
        assert images <= 3 * 320 * 8, name
        assert small.data.image_size <= 64, name
        assert small.evaluation.queries * small.evaluation.steps <= 256, name
        assert presets.with_quick_budget(small) == small


class Net(nn.Module):
    """A network whose construction takes an argument, so that its name alone does not make it."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, width))

    def forward(self, images):
        return self.layers(images)


def small_net(width=6):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Net(width)


def test_a_module_is_trained_from_its_own_weights_and_left_as_it_is(tmp_path):
    net, before = small_net(), small_net().state_dict()
    still = TINY | {"training.learning_rate": 1e-12, "training.epochs": 1, "data.pairs_per_batch": 16}
    run = ct.train("digits", model=net, defense="natural", directory=tmp_path / "still", overrides=still)
    assert run.config.model.architecture.endswith(":Net")
    trained = run.model.backbone.state_dict()
    assert all(torch.allclose(trained[name], value, atol=1e-6) for name, value in before.items())
    moved = ct.train(
        "digits", model=net, defense="natural", directory=tmp_path / "moved", overrides=TINY | {"training.epochs": 1}
    )
    assert not torch.allclose(moved.model.backbone.state_dict()["layers.1.weight"], before["layers.1.weight"])
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_a_run_of_a_module_is_resumed_evaluated_and_loaded_with_it(tmp_path):
    net, words = small_net(), {"defense": "natural", "directory": tmp_path / "run"}
    short = TINY | {"training.epochs": 2, "evaluation.steps": 2}
    run = ct.train("digits", model=net, overrides=short, **words)
    again = ct.train("digits", model=net, overrides=short, **words)
    assert [one.diagnostics for one in again.outcome.history] == [one.diagnostics for one in run.outcome.history]
    images = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        expected = run.model(images)
    assert torch.allclose(ct.load(tmp_path / "run", model=net).embed(images), expected, atol=1e-6)
    assert pytest.approx(
        ct.evaluate(run.model, load_test(run.config.data).pixels(torch.arange(714)), load_test(run.config.data).labels,
                    queries=10, steps=2, epsilon=run.config.evaluation.epsilon, step_size=run.config.evaluation.step_size).ARS
    ) == ct.evaluate(run, queries=10).ARS  # fmt: skip
    with pytest.raises(ModelError, match=r"cannot be made .*ct\.load\(DIRECTORY, model=MODULE\)"):
        ct.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="another model"):
        ct.load(tmp_path / "run", model=small_net(7))


def test_a_module_takes_an_embedding_of_another_width(tmp_path):
    short = TINY | {"training.epochs": 1, "model.embedding_dim": 4}
    run = ct.train("digits", model=small_net(), defense="natural", directory=tmp_path / "run", overrides=short)
    assert ct.load(run.directory, model=small_net()).embed(torch.rand(2, 1, 8, 8)).shape == (2, 4)


def test_no_public_name_is_also_a_package():
    """Importing `colotride.NAME` would replace the function by the package."""
    packages = {path.stem for path in Path(ct.__file__).parent.iterdir() if path.suffix in ("", ".py")}
    assert not packages & (set(ct.__all__))
