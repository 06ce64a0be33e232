"""From options to the configuration of a run."""

import pytest
import torch

from colotride.cli.arguments import parse
from colotride.cli.configuration import run_config
from colotride.cli.options.search import Search
from colotride.cli.options.train import Train
from colotride.config import save_config
from colotride.devices import device_of
from colotride.errors import ConfigurationError
from colotride.presets import preset, with_quick_budget, with_reading
from colotride.registry import DEFENSES


def configured(*arguments):
    return run_config(parse(Train, arguments))


def refused(*arguments):
    with pytest.raises(ConfigurationError) as error:
        configured(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_options_it_is_the_preset():
    assert configured() == preset("digits")
    assert configured("--dataset", "cub") == configured("--preset", "cub") == preset("cub")


def test_single_settings_are_overridden():
    run = configured(
        "--run.pgd.epsilon", "8/255", "--run.training.epochs=7", "--run.data.flip", "--run.evaluation.queries", "none",
        "--run.evaluation.recall-at", "1", "5", "--run.seed", "3",
    )  # fmt: skip
    values = {"pgd.epsilon": 8 / 255, "training.epochs": 7, "data.flip": True, "seed": 3}
    assert run == preset("digits").with_values(values | {"evaluation.recall_at": (1, 5), "evaluation.queries": None})
    assert configured("--dataset", "cub", "--run.data.no-flip").data.flip is False
    assert configured("--dataset", "cub", "--run.model.weights", "none").model.weights == "none"


def test_a_file_takes_the_place_of_the_preset(tmp_path):
    save_config(preset("sop").with_values({"seed": 5}), tmp_path / "run.yaml")
    run = configured("--config", str(tmp_path / "run.yaml"), "--run.pgd.steps", "9")
    assert run == preset("sop").with_values({"seed": 5, "pgd.steps": 9})
    assert "leave --dataset away" in refused("--config", str(tmp_path / "run.yaml"), "--dataset", "cub")


def test_another_defense_comes_with_its_own_settings_only():
    for name in DEFENSES:
        assert configured("--defense", name).defense.name == name
    assert "no setting" in refused("--defense", "natural", "--run.defense.assist-disabled-fraction", "1")


def test_the_environment_says_where_the_data_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("COLOTRIDE_DATA", str(tmp_path))
    assert configured().data.root == tmp_path
    assert configured("--data-root", "/elsewhere").data.root.as_posix() == "/elsewhere"
    assert configured("--run.data.root", "/elsewhere").data.root.as_posix() == "/elsewhere"


def test_quick_lowers_every_budget_and_settings_still_win():
    for name in ("digits", "cub", "sop"):
        run = configured("--dataset", name, "--quick")
        assert run == with_quick_budget(preset(name))
        assert run.training.epochs <= 3
        assert run.data.pairs_per_epoch <= 320
    assert configured("--quick", "--run.training.epochs", "4").training.epochs == 4


def test_a_plugin_is_imported_first_and_kept_in_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "plugin_of_configuration_test.py").write_text(
        "from colotride.registry import register_dataset\n"
        "@register_dataset('squares', recommended={'data.image_size': 32})\n"
        "def squares(root, stored_size):\n    raise NotImplementedError\n"
    )
    monkeypatch.chdir(tmp_path)
    run = configured("--plugin", "plugin_of_configuration_test", "--dataset", "squares")
    assert (run.plugins, run.data.name, run.data.image_size) == (("plugin_of_configuration_test",), "squares", 32)
    assert "no_such_module" in refused("--plugin", "no_such_module")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--run.pgd.steps", "0"], ["steps", "greater than or equal to 1", "0"]),
        (["--run.pgd.epsilon", "-1/255"], ["epsilon", "greater than or equal to 0"]),
        (["--run.pgd.steps", "many"], ["pgd.steps", "many"]),
        (["--run.pgd.steps"], ["--run.pgd.steps needs a value"]),
        (["--run.pgd.stepz", "3"], ["--run.pgd.stepz", "did you mean --run.pgd.steps?"]),
        (["--dataset", "birds"], ["birds", "digits, fashion-mnist"]),
        (["--defense", "magic"], ["magic", "natural"]),
        (["--config", "/nowhere.yaml"], ["/nowhere.yaml"]),
        (["--run.model.architecture", "resnet19"], ["resnet19", "resnet18"]),
        (["--run.model.architecture", "timm:resnet19"], ["resnet19", "resnet18"]),
        (["--run.model.architecture", "jax:resnet18:x"], ["no known form", "timm:NAME"]),
        (["--run.model.weights", "/nowhere.safetensors"], ["/nowhere.safetensors cannot be read"]),
        (["--recipe", "mine"], ["mine", "real-photos"]),
        (["--run.data.image-size", "900"], ["image_size 900 is larger"]),
    ],
)
def test_bad_settings_are_one_line_that_names_the_thing_and_the_remedy(arguments, named):
    text = refused(*arguments)
    assert all(word in text for word in named), text


def test_a_device_that_is_not_there_is_one_line():
    assert device_of("cpu") == torch.device("cpu")
    with pytest.raises(ConfigurationError, match="device 'cuda:99' cannot be used") as error:
        device_of("cuda:99")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", [Train, Search])
def test_the_reading_reaches_the_run_of_every_command_that_trains(command):
    run = run_config(parse(command, ("--dataset", "cub", "--reading", "released")))
    assert run == with_reading(preset("cub"), "released") != preset("cub")
