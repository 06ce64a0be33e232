"""The command itself: its help, and how it refuses."""

import importlib
import subprocess
import sys

import pytest

from colotride.cli import main as command_line
from colotride.cli.arguments import parse, parser_of
from colotride.cli.main import COMMANDS, EXTRAS
from colotride.cli.options.search import Search
from colotride.errors import ConfigurationError
from colotride.registry import DATASETS
from tests.commands import ROOT, refused, run

HEAVY = (
    "torch",
    "torchvision",
    "numpy",
    "ray",
    "mlflow",
    "optuna",
    "plotly",
    "matplotlib",
    "pyarrow",
    "pandas",
    "rich",
)

SHIMS = {name: ROOT / f"scripts/{name}.py" for name in COMMANDS} | {"search": ROOT / "tune/search.py"}


def options_of(name):
    return getattr(importlib.import_module(f"colotride.cli.options.{name}"), name.capitalize())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_one_screen_and_says_every_default_once(name):
    text = parser_of(options_of(name), rare=False).format_help()
    assert text.startswith(f"usage: colotride {name} ")
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    for line in text.split("\n  --"):
        assert line.count("(default") <= 1, line
    if "--dataset" in text:
        known = text.partition("--dataset NAME")[2]
        assert all(dataset in known for dataset in DATASETS)


def test_help_of_every_command_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from colotride.cli.main import COMMANDS, execute\n"
        "for name in COMMANDS:\n"
        "    try:\n"
        "        execute(name, ['--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        f"print('HEAVY', sorted(set({HEAVY}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("usage: colotride ") == len(COMMANDS)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_all_shows_the_rare_options_and_every_setting_with_its_value(capsys):
    assert command_line.execute("search", ["--dataset", "cub", "--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--verdict-seeds N" in text
    assert "--run.collapseness.attention-factor X lambda of Eq. 6-7" in text
    assert "--run.model.embedding-dim N Dimensions of the embedding; null embeds" in text
    assert "--run.pgd.epsilon" in text
    assert "--verdict-seeds" not in parser_of(Search, rare=False).format_help()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_promises_the_settings_of_a_run_where_help_all_lists_them(name, capsys):
    promised = "every setting of a run" in parser_of(options_of(name), rare=False).format_help()
    assert command_line.execute(name, ["--help-all"]) == 0
    assert promised == ("--run.pgd.epsilon" in capsys.readouterr().out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described_and_every_example_is_understood(name):
    command = options_of(name)
    text = parser_of(command, rare=True).format_help()
    for field in command.model_fields:
        if field not in ("settings",):
            assert command.model_fields[field].description, field
    for example in command.examples:
        assert parse(command, example.split())
        assert f"colotride {name} {example}" in text


def test_the_overview_names_every_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "colotride"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert len(done.stdout.splitlines()) <= 40
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_the_scripts_are_shims_over_the_same_commands():
    for name, path in SHIMS.items():
        if name in ("embed", "index", "query", "demo", "push", "tournament", "interpolate"):
            continue
        assert len(path.read_text().splitlines()) <= 10, path
        assert f'run("{name}")' in path.read_text()


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("train", ["--workers", "0"], "--workers 0: should be greater than or equal to 1"),
        ("train", ["--workers", "3:2"], "--workers 3:2: should be a range that goes up, such as 2:3"),
        ("evaluate", ["--model", "x", "--workers", "-2"], "--workers -2: should be greater than or equal to 1"),
        ("evaluate", ["--model", "x", "--gpus-per-worker", "nan"], "--gpus-per-worker nan: should be a finite number"),
        ("evaluate", ["--model", "x", "--gpus-per-worker", "-1"], "--gpus-per-worker -1: should be greater than"),
        (
            "evaluate",
            ["--model", "x", "--example-queries", "-1"],
            "--example-queries -1: should be greater than or equal to 0",
        ),
        ("evaluate", ["--model", "x", "--epsilon", "-1/255"], "--epsilon -1/255: should be greater than or equal to 0"),
        ("evaluate", [], "--model is missing"),
        ("train", ["--seed", "-1"], "--seed -1: should be greater than or equal to 0"),
        ("search", ["--seed", "-1"], "--seed -1: should be greater than or equal to 0"),
        ("search", ["--trials", "0"], "--trials 0: should be greater than or equal to 1"),
        ("search", ["--sampler", "guess"], "--sampler guess: should be 'tpe', 'gp', 'nsga2' or 'random'"),
        ("train", ["--max-failures", "-5"], "--max-failures -5: should be greater than or equal to -1"),
        ("train", ["--keep-checkpoints", "0"], "--keep-checkpoints 0: should be greater than or equal to 1"),
        ("train", ["--checkpoint-minutes", "0"], "--checkpoint-minutes 0: should be greater than 0"),
        ("train", ["--cpus-per-worker", "0"], "--cpus-per-worker 0: should be greater than or equal to 1"),
        ("train", ["--device", "meta"], "--device meta: should be auto, cpu, cuda, cuda:1 or mps"),
        ("train", ["--epochs", "x"], "--epochs x: should be a valid integer"),
        ("train", ["--epoch", "3"], "unknown option --epoch (did you mean --epochs?)"),
        ("train", ["more"], "unexpected argument more"),
        ("train", ["--data-root"], "--data-root: expected one argument"),
        ("reproduce", ["table1", "--seeds", "0"], "--seeds 0: should be greater than or equal to 1"),
        ("benchmark", ["--threads", "0"], "--threads 0: should be greater than or equal to 1"),
        ("benchmark", ["--image-sizes"], "--image-sizes: expected at least one argument"),
        ("benchmark", ["--image-sizes", "28", "0"], "--image-sizes 0: should be greater than or equal to 1"),
        ("benchmark", ["stpe"], "WHAT stpe: should be 'step', 'profile'"),
        ("download", ["mnist"], "DATASET mnist: should be 'fashion-mnist', 'cub'"),
        ("download", [], "DATASET"),
        ("sync", ["--seconds", "-1"], "--seconds -1: should be greater than or equal to 0"),
    ],
)
def test_values_out_of_range_are_one_line_before_anything_is_imported(name, arguments, line):
    with pytest.raises(ConfigurationError) as error:
        parse(options_of(name), arguments)
    assert line in str(error.value)
    assert str(error.value).endswith("; see --help")
    assert "\n" not in str(error.value)


def test_bad_input_exits_with_2_and_one_line(tmp_path):
    assert refused(run("scripts/train.py", "--seed", "-1", cwd=tmp_path)).startswith("error: --seed -1: ")
    assert "no command 'trian'" in refused(run("trian", cwd=tmp_path))


def test_defects_keep_their_traceback(monkeypatch):
    def broken(name, arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(command_line, "execute", broken)
    with pytest.raises(ZeroDivisionError):
        command_line.run("train", [])


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_named(monkeypatch, capsys, package):
    def missing(name, arguments):
        raise ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.some.part")

    monkeypatch.setattr(command_line, "execute", missing)
    with pytest.raises(SystemExit) as end:
        command_line.run("search", [])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"pip install 'colotride[{EXTRAS[package]}]'" in said


def test_a_reader_that_stops_reading_sees_no_traceback():
    command = [sys.executable, "-m", "colotride", "train", "--help"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) in (0, 141)
