from dataclasses import dataclass

import pytest
import torch

from colotride.cli import options
from colotride.cli.options import base_config, device_of, parse
from colotride.config import RunConfig, save_config
from colotride.errors import ConfigurationError
from colotride.presets import preset


@dataclass(frozen=True)
class Command:
    """A command."""

    run: RunConfig
    preset: str = "digits"
    config: str | None = None
    defense: str | None = None
    count: int = 3


def parsed(*arguments):
    return parse(Command, arguments, Command(run=base_config(arguments)))


def refused(*arguments):
    with pytest.raises(ConfigurationError) as error:
        parsed(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_options_it_is_the_preset():
    assert parsed() == Command(run=preset("digits"))
    assert parsed("--preset", "cub").run == preset("cub")


def test_single_fields_are_overridden_and_fractions_understood():
    run = parsed("--run.pgd.epsilon", "8/255", "--run.training.epochs", "7", "--run.data.flip").run
    assert run == preset("digits").with_values({"pgd.epsilon": 8 / 255, "training.epochs": 7, "data.flip": True})


def test_a_file_takes_the_place_of_the_preset(tmp_path):
    save_config(preset("sop").with_values({"seed": 5}), tmp_path / "run.yaml")
    run = parsed("--config", str(tmp_path / "run.yaml"), "--run.pgd.steps", "9").run
    assert run == preset("sop").with_values({"seed": 5, "pgd.steps": 9})


def test_another_defense_comes_with_its_own_options_only():
    assert parsed("--defense", "natural").run.defense.name == "natural"
    assert "top-ranked-coefficient" in refused("--defense", "natural", "--run.defense.top-ranked-coefficient", "1")


def test_the_environment_says_where_the_data_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("COLOTRIDE_DATA", str(tmp_path))
    assert parsed().run.data.root == tmp_path
    assert parsed("--run.data.root", "/elsewhere").run.data.root.as_posix() == "/elsewhere"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--run.pgd.steps", "0"], ["steps", "greater than or equal to 1", "0"]),
        (["--run.pgd.epsilon", "-1/255"], ["epsilon", "greater than or equal to 0"]),
        (["--run.pgd.steps", "many"], ["--run.pgd.steps", "many"]),
        (["--run.pgd.stepz", "3"], ["--run.pgd.stepz", "--run.pgd.steps"]),
        (["--count", "x"], ["--count", "x"]),
        (["--preset", "birds"], ["birds", "digits, fashion-mnist"]),
        (["--defense", "magic"], ["magic", "natural"]),
        (["--config", "/nowhere.yaml"], ["/nowhere.yaml"]),
        (["--run.model.architecture", "resnet19"], ["resnet19", "resnet18"]),
        (["--run.data.image-size", "900"], ["image_size 900 is larger"]),
    ],
)
def test_bad_input_is_one_line_that_names_the_thing_and_the_remedy(arguments, named):
    text = refused(*arguments)
    assert all(word in text for word in named), text


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as end:
        parsed("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--run.pgd.steps", "--run.collapseness.attention-factor", "lambda of Eq. 6-7"))


def test_errors_of_users_exit_with_2_and_one_line_others_keep_their_traceback(capsys):
    def bad(arguments):
        raise ConfigurationError("colour 'x' is unknown; choose red")

    with pytest.raises(SystemExit) as end:
        options.run(bad)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: colour 'x' is unknown; choose red\n"

    def broken(arguments):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        options.run(broken)


def test_a_device_that_is_not_there_is_one_line():
    assert device_of("cpu") == torch.device("cpu")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ConfigurationError, match=f"device '{name}' cannot be used") as error:
            device_of(name)
        assert "\n" not in str(error.value)
