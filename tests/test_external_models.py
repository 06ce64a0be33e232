"""Everybody's models, through the real formats."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from colotride.data.base import InMemoryImages
from colotride.errors import ModelError
from colotride.evaluation.evaluator import evaluate
from colotride.evaluation.settings import EvaluationSettings
from colotride.external_models import ExternalModel, load_external_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.dropout, self.linear = nn.Dropout(0.5), nn.Linear(4 * 16, 5)

    def forward(self, images):
        maps = functional.relu(self.norm(self.convolution(images)))
        return functional.normalize(self.linear(self.dropout(maps.flatten(1))), dim=1)


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def script(path):
    torch.jit.script(net()).save(path)


def traced_and_frozen(path):
    torch.jit.freeze(torch.jit.trace(net(), torch.rand(2, 3, 4, 4))).save(path)


def exported(path):
    batch = torch.export.Dim("batch", min=1)
    torch.export.save(torch.export.export(net(), (torch.rand(2, 3, 4, 4),), dynamic_shapes=({0: batch},)), path)


def images():
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 3, 4, 4), generator=random, dtype=torch.uint8)
    return InMemoryImages("toy", pixels, torch.arange(20) % 4)


def benign(model):
    settings = EvaluationSettings(steps=1, epsilon=0.1, step_size=0.05, batch_size=8, bootstrap=0, queries=1)
    return evaluate(model, images(), settings, image_size=4, seed=0, device=torch.device("cpu")).benign


def scores(model):
    settings = EvaluationSettings(steps=2, epsilon=0.1, step_size=0.05, batch_size=8, bootstrap=0)
    return evaluate(model, images(), settings, image_size=4, seed=0, device=torch.device("cpu")).scores()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize(("make", "name"), [(script, "net.pt"), (traced_and_frozen, "net.pt"), (exported, "net.pt2")])
def test_saved_models_are_attacked_and_score_as_the_model_itself(tmp_path, make, name):
    make(str(tmp_path / name))
    saved, model = load_external_model(str(tmp_path / name)), net()
    assert benign(saved) == benign(model)
    pixels = images().pixels(torch.arange(20)).float() / 255
    direction = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    embeddings, gradients = [], []
    for each in (saved, model):
        leaf = pixels.clone().requires_grad_(True)
        embedded = each(leaf)
        embeddings.append(embedded.detach())
        gradients += torch.autograd.grad((embedded * direction).sum(), leaf)
    torch.testing.assert_close(*embeddings)
    torch.testing.assert_close(*gradients)
    assert gradients[1].abs().amax(dim=(1, 2, 3)).min() > 0


def test_a_function_of_the_working_directory_makes_a_model(tmp_path, monkeypatch):
    (tmp_path / "homemade.py").write_text(
        "from tests.test_external_models import net\n\ndef make():\n    return net().train()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert scores(load_external_model("homemade:make")) == scores(net())


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("nowhere.pt", "is not there; give a run's folder"),
        ("torch:no_such_thing", "AttributeError"),
        ("no_such_package:net", "ModuleNotFoundError"),
        ("os:getcwd", "is a str"),
    ],
)
def test_what_is_no_model_is_one_line(spec, complaint):
    with pytest.raises(ModelError, match=complaint) as error:
        load_external_model(spec)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_file_that_holds_something_else_is_one_line(tmp_path, name):
    (tmp_path / name).write_text("nothing of the kind")
    with pytest.raises(ModelError, match=r"is not (a TorchScript file|an exported program)") as error:
        load_external_model(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_what_a_model_raises_is_one_line_that_names_it():
    with pytest.raises(ModelError, match="model mine failed on images") as error:
        ExternalModel(nn.Linear(7, 2), "mine")(torch.zeros(1, 3, 4, 4))
    assert "\n" not in str(error.value)


class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = net(), change

    def forward(self, images):
        return self.change(self.net(images))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [(lambda e: e.to("meta"), "embeddings on meta"), (lambda e: (e, e), "returned tuple"), (lambda e: 3 * e, "by 2")],
)
def test_embeddings_that_lie_are_one_line(change, complaint):
    with pytest.raises(ModelError, match=complaint):
        scores(ExternalModel(Returning(change), "liar"))
