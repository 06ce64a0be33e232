"""What the demo answers, against the embeddings and the labels themselves."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from colotride.api import train
from colotride.demo.comparison import ATTACKS, RESULTS, open_runs
from colotride.errors import ConfigurationError, DataError
from colotride.presets import preset
from tests.layouts import make_cub
from tests.short_runs import SHORT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("one", "two")):
        train("digits", defense="natural", directory=folder / name, overrides=SHORT | {"seed": seed})
    told = []
    found = open_runs(
        {name: folder / name for name in ("one", "two")},
        most=400,
        device=CPU,
        progress=lambda what, share: told.append((what, share)),
    )
    assert ("embedding the pictures with two", 1.0) in told
    return found, folder


def test_whole_classes_are_searched_up_to_the_number_asked_for(comparison):
    found, folder = comparison
    counts = torch.tensor(found.labels).unique(return_counts=True)[1]
    whole = open_runs({"one": folder / "one"}, most=100_000, device=CPU)
    every = torch.tensor(whole.labels).unique(return_counts=True)[1]
    assert len(found.labels) <= 400 < len(found.labels) + int(every[len(counts)])
    assert torch.equal(counts, every[: len(counts)])
    with pytest.raises(DataError, match="3 pictures are fewer than two classes"):
        open_runs({"one": folder / "one"}, most=3, device=CPU)


def test_pictures_to_begin_with_are_of_every_class_in_turn(comparison):
    found, _ = comparison
    classes = list(found.class_names())
    labels = [found.labels[place] for place in found.suggestions(2 * len(classes))]
    assert labels == classes * 2


@pytest.mark.parametrize("attack", ATTACKS)
def test_results_are_the_nearest_others_and_right_where_their_class_is_the_querys(comparison, attack):
    found, _ = comparison
    query, epsilon = 3, 16 / 255
    answers = found.answer(query, attack=attack, epsilon=epsilon, steps=4)
    assert [answer.model for answer in answers] == ["one", "two"]
    for model, answer in zip(found.models, answers, strict=True):
        embeddings = model.gallery.embeddings.double()
        others = [place for place in range(len(found.images)) if place != query]
        for image, results in ((answer.view, answer.before), (answer.perturbed, answer.after)):
            with torch.no_grad():
                embedding = model.embedder.module(image[None])[0].double()
            nearest = sorted(others, key=lambda place: float((embeddings[place] - embedding).norm()))
            assert [one.place for one in results] == nearest[:RESULTS]
            assert [one.correct for one in results] == [
                found.labels[place] == found.labels[query] for place in nearest[:RESULTS]
            ]
        change = answer.perturbed - answer.view
        assert float(change.abs().max()) == pytest.approx(epsilon, abs=1e-6)
        assert 0 <= float(answer.perturbed.min()) <= float(answer.perturbed.max()) <= 1
        assert torch.allclose(answer.perturbation, change / (2 * epsilon) + 0.5, atol=1e-6)
        if attack == "GTM":
            squares = (embeddings - embeddings[query]).norm(dim=1)
            squares[torch.tensor(found.labels) == found.labels[query]] = torch.inf
            assert answer.target == int(squares.argmin())
        assert (answer.target is None) == (attack in ("ES", "LTM"))


def test_epsilon_0_changes_nothing(comparison):
    found, _ = comparison
    for answer in found.answer(5, attack="ES", epsilon=0.0, steps=4):
        assert torch.equal(answer.view, answer.perturbed)
        assert answer.before == answer.after
        assert answer.shift == 0


def test_a_picture_from_elsewhere_is_searched_as_one_of_the_gallery(comparison, tmp_path):
    found, _ = comparison
    place = 7
    pixels = found.images.pixels(torch.tensor([place]))[0, 0]
    path = tmp_path / "seven.png"
    Image.fromarray(pixels.numpy()).save(path)
    for own, elsewhere in zip(
        found.answer(place, attack="ES", epsilon=0.0, steps=1),
        found.answer(path, attack="ES", epsilon=0.0, steps=1),
        strict=True,
    ):
        assert elsewhere.before[0].place == place, "the picture itself is in the gallery, and not left out"
        assert [one.place for one in elsewhere.before[1:]] == [one.place for one in own.before[:-1]]
        assert elsewhere.before[0].correct, "its class is that of its first result"
    other = next(label for label in found.class_names() if label != found.labels[place])
    told = found.answer(path, attack="LTM", epsilon=0.0, steps=1, label=other)[0]
    assert [one.correct for one in told.before] == [found.labels[one.place] == other for one in told.before]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"attack": "XYZ"}, "attack 'XYZ' is none of ES, LTM, GTM, TMA"),
        ({"epsilon": 1.5}, "is no budget"),
        ({"steps": 0}, "is no budget"),
        ({"query": 100_000}, "picture 100000 is not there"),
        ({"query": -1}, "picture -1 is not there"),
        ({"label": 0}, "picture 0 has a class of its own"),
        ({"query": Path("a.png"), "label": 77}, "class 77 is not in the gallery"),
    ],
)
def test_what_cannot_be_answered_is_refused(comparison, changes, complaint):
    asked = {"query": 0, "attack": "ES", "epsilon": 0.1, "steps": 2} | changes
    with pytest.raises(ConfigurationError, match=complaint):
        comparison[0].answer(asked.pop("query"), **asked)


def test_runs_of_other_pictures_are_not_compared(comparison, tmp_path):
    _, folder = comparison
    make_cub(tmp_path / "data", classes=4, images_per_class=4)
    birds = {"data.name": "cub", "data.root": str(tmp_path / "data"), "data.stored_size": 10, "data.image_size": 8}
    train(preset("digits"), defense="natural", directory=tmp_path / "birds", overrides=SHORT | birds)
    with pytest.raises(ConfigurationError, match="was not trained on the pictures of the run before it"):
        open_runs({"one": folder / "one", "birds": tmp_path / "birds"}, most=1000, device=CPU)
