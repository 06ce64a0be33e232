"""Bad inputs, run through the command in this process: one line, exit code 2, nothing written, nothing hanging."""

import json
import os
import re
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from pyarrow import parquet
from rich.table import Table

import colotride as ct
from colotride.cli.main import run
from colotride.data.files import decode
from colotride.errors import ConfigurationError
from colotride.evaluation.leaderboard import Entry, tables
from colotride.evaluation.scores import HEADLINE_SCORES
from colotride.names import check_label, check_name
from colotride.terminal import Terminal
from tests.layouts import picture

LONG = "x" * 300
SMALL = (
    "--image-size",
    "16",
    "--steps",
    "1",
    "--epsilon",
    "8/255",
    "--batch-size",
    "8",
    "--queries",
    "4",
    "--no-track",
)

MODELS = """
import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, change=lambda embeddings, images: embeddings, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.change = nn.Conv2d(channels, 8, 3), change

    def forward(self, images):
        maps = functional.relu(self.convolution(images)).mean(dim=(2, 3))
        return self.change(functional.normalize(maps, dim=1), images)


class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, images):
        raise self.error


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(context, embeddings):
        return embeddings.clone()

    @staticmethod
    def backward(context, gradient):
        raise KeyError("no way\\nback")


class Nan(torch.autograd.Function):
    @staticmethod
    def forward(context, embeddings):
        return embeddings.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("nan")


class Batch(nn.Module):
    def forward(self, images):
        return functional.normalize(images.flatten(1)[:, : 2 + len(images)] + 0.1, dim=1)


constant = lambda: Net(lambda e, x: (e * 0 + 1) / e.shape[1] ** 0.5)
detached = lambda: Net(lambda e, x: e.detach())
through_numpy = lambda: Net(lambda e, x: torch.from_numpy(e.detach().numpy().copy()))
without_grad = lambda: Net(lambda e, x: torch.no_grad()(lambda: e * 1.0)())
integer = lambda: Net(lambda e, x: (e * 100).long())
boolean = lambda: Net(lambda e, x: e > 0)
complex_ = lambda: Net(lambda e, x: e.to(torch.complex64))
pair = lambda: Net(lambda e, x: (e, e))
mapping = lambda: Net(lambda e, x: {"embeddings": e})
nothing = lambda: Net(lambda e, x: None)
array = lambda: Net(lambda e, x: e.detach().numpy())
flat = lambda: Net(lambda e, x: e.flatten())
scalar = lambda: Net(lambda e, x: e.sum())
maps = lambda: Net(lambda e, x: e[:, :, None, None])
fewer = lambda: Net(lambda e, x: e[1:])
no_dimension = lambda: Net(lambda e, x: e[:, :0])
long = lambda: Net(lambda e, x: 2 * e)
zero = lambda: Net(lambda e, x: 0 * e)
nan = lambda: Net(lambda e, x: e * float("nan"))
half_weights = lambda: Net().half()
grey = lambda: Net(channels=1)
many_channels = lambda: Net(channels=4)
key_error = lambda: Fails(KeyError("no such\\nkey"))
own_error = lambda: Fails(type("Own", (Exception,), {})("mine"))
silent_error = lambda: Fails(ZeroDivisionError())
no_way_back = lambda: Net(lambda e, x: Cut.apply(e))
nan_gradient = lambda: Net(lambda e, x: Nan.apply(e))
batch_shape = lambda: Batch()
big_only = lambda: nn.Sequential(nn.Conv2d(3, 4, 40), nn.Flatten())
half = lambda: Net(lambda e, x: e.half())
bfloat = lambda: Net(lambda e, x: e.bfloat16())
good = lambda: Net()
no_module = lambda: 3
raises = lambda: 1 / 0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of one epoch, photographs of four classes, a table of them, models, and things that are none."""
    place = tmp_path_factory.mktemp("place")
    overrides = {"pgd.steps": 1, "data.pairs_per_epoch": 64}
    ct.train("digits", defense="natural", directory=place / "run", epochs=1, overrides=overrides, device="cpu")
    random = np.random.default_rng(0)
    for label in range(4):
        folder = place / "photos" / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(3):
            picture(label, 20, random).save(folder / f"{index}.png")
    (place / "mine.py").write_text(MODELS)
    (place / "empty").mkdir()
    (place / "binary").write_bytes(bytes(range(256)))
    (place / "text.yaml").write_text("only text")
    (place / "latin.yaml").write_bytes("data: {name: größe}".encode("latin-1"))
    (place / "mlmodel").mkdir()
    (place / "mlmodel" / "MLmodel").write_text("flavors: {}")
    for name, inside in (("dict.pt", {"a": torch.ones(1)}), ("module.pt", torch.nn.Linear(1, 1))):
        torch.save(inside, place / name)
    (place / "text.pt2").write_text("nothing of the kind")
    with zipfile.ZipFile(place / "zip.pt2", "w") as archive:
        archive.writestr("hello", "world")
    os.mkfifo(place / "pipe")
    os.mkfifo(place / "pipe.yaml")
    os.mkfifo(place / "pipe.pt")
    return place


@pytest.fixture(autouse=True)
def _nothing_hangs():
    def too_long(number, frame):
        raise TimeoutError("the command hangs")

    former = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.delenv("COLOTRIDE_DATA", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".colotride" not in path.parts
    }


def refusal(capsys, *words):
    """The one line with which a command is refused, and which leaves everything as it was."""
    before, outside = contents(Path.cwd()), set(Path.cwd().parent.iterdir())
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(words[0], [str(word) for word in words[1:]])
    told = capsys.readouterr()
    assert ended.value.code == 2, told
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert len(line) > len("error: ") + 10
    assert contents(Path.cwd()) == before
    assert set(Path.cwd().parent.iterdir()) == outside
    return line


TRAIN = ("train", "--dataset", "digits", "--directory", "new", "--no-track")
SEARCH = ("search", "--dataset", "digits", "--results", "searches", "--trials", "2")
EVALUATE = ("evaluate", "--model", "run", "--no-track")
REPRODUCE = ("reproduce", "table4", "--dataset", "digits", "--results", "reproduced")
BENCHMARK = ("benchmark", "step", "--output", "measured")
EMBED = ("embed", "photos", "--model", "run", "--device", "cpu")
QUERY = ("query", "photos/class0/0.png", "--model", "run", "--gallery", "photos", "--device", "cpu")

COUNTS = ("0", "-1", "-2", "1.5", "nan", "inf", "many", "", "1e3", "٣x")
NUMBERS = {
    TRAIN: {
        "--epochs": COUNTS,
        "--seed": ("-1", "4294967296", "1.5", "x", ""),
        "--workers": ("0", "-2", "2:1", "0:3", ":", "2:", ":2", "1.5", "x", "", "2:3:4", "²"),
        "--cpus-per-worker": ("0", "-1", "x"),
        "--max-failures": ("-2", "-5", "1.5", "x"),
        "--checkpoint-minutes": ("0", "-1", "nan", "inf", "x"),
        "--keep-checkpoints": ("0", "-3", "x"),
        "--device": ("meta", "tpu", "cuda:x", "cuda:-1", "cpu:9:9", ""),
        "--run.pgd.steps": ("0", "-1", "x", "1.5"),
        "--run.pgd.epsilon": ("-0.5", "1/0", "nan", "inf", "2", "x/255", "8/"),
        "--run.pgd.step-size": ("0", "-1", "nan"),
        "--run.seed": ("-1", "4294967296", "x"),
        "--run.data.pairs-per-batch": ("0", "1", "-3", "x"),
        "--run.data.validation-fraction": ("0", "1", "-0.5", "nan"),
        "--run.training.learning-rate": ("-1", "nan", "inf", "x"),
    },
    SEARCH: {
        "--trials": COUNTS,
        "--max-cost": ("0", "-1", "nan", "inf", "x"),
        "--max-epochs": ("0", "-1"),
        "--first-share": ("0", "1.1", "nan", "-1", "x"),
        "--seed": ("-1", "4294967296", "x"),
        "--top": ("0", "-1"),
        "--verdict-seeds": ("0", "-1"),
        "--concurrent": ("0", "-1"),
        "--cpus-per-trial": ("0", "-1", "99999"),
        "--gpus-per-trial": ("-1", "nan", "inf", "x", "99999"),
        "--workers-per-trial": ("0", "-2", "99999"),
        "--device": ("meta", "x"),
        "--objective": ("", "x", "ars,ars", "ars,", ","),
        "--sampler": ("x", ""),
        "--stopping": ("x", ""),
        "--groups": ("x",),
    },
    EVALUATE: {
        "--queries": (*COUNTS, "99999"),
        "--steps": COUNTS,
        "--batch-size": COUNTS,
        "--image-size": ("0", "-1", "x", "4096"),
        "--epsilon": ("-1/255", "1/0", "nan", "2", "x"),
        "--step-size": ("0", "-1", "nan", "x"),
        "--norm": ("l1", ""),
        "--protocol": ("x", ""),
        "--seed": ("-1", "4294967296", "x"),
        "--workers": ("0", "-2", "x", "99999"),
        "--gpus-per-worker": ("-1", "nan", "inf", "x"),
        "--calls": ("0", "2", "x"),
        "--poison": ("0", "-1", "x"),
        "--certify": ("0", "-1", "nan", "x"),
        "--certify-radii": ("-1", "nan", "x"),
        "--certify-samples": ("0", "-1", "x"),
        "--example-queries": ("-1", "x"),
        "--black-box": ("x", ""),
        "--extra-attacks": ("x", ""),
        "--device": ("meta", "x", "cuda:99"),
        "--dataset": ("x", ""),
    },
    REPRODUCE: {
        "--seeds": ("0", "-1", "x"),
        "--epochs": ("0", "-1", "x"),
        "--pairs-per-epoch": ("0", "-1"),
        "--pairs-per-batch": ("0", "-1", "1"),
        "--queries": ("0", "-1"),
        "--attack-steps": ("0", "-1"),
        "--concurrent": ("0", "-1"),
        "--cpus-per-run": ("0", "-1", "99", "x"),
        "--gpus-per-run": ("-1", "nan", "inf", "99"),
        "--device": ("meta",),
        "--dataset": ("x", ""),
    },
    BENCHMARK: {
        "--image-sizes": ("0", "-1", "x"),
        "--galleries": ("0", "99", "x"),
        "--queries": ("0", "-1"),
        "--triplets": ("0", "3"),
        "--steps": ("0", "-1"),
        "--trials": ("0",),
        "--seeds": ("0",),
        "--rounds": ("0", "-1"),
        "--workers": ("0", "-1"),
        "--threads": ("0", "-1", "x"),
        "--precision": ("float16", ""),
        "--device": ("meta",),
    },
    QUERY: {"-k": ("0", "-1", "x"), "--device": ("meta",)},
    EMBED: {"--device": ("meta", "cuda:99")},
    ("download", "folder", "--data-root", "photos"): {"--stored-size": ("0", "-1", "x")},
    ("sync", "run"): {"--seconds": ("-1", "nan", "x")},
}
NUMBER_CASES = [
    (*command, option, value)
    for command, options in NUMBERS.items()
    for option, values in options.items()
    for value in values
]


def named(option, line):
    """Whether a line names an option, by itself or as the thing that it sets."""
    thing = option.lstrip("-").rpartition(".")[2]
    return any(word in line for word in (option, thing, thing.replace("-", "_"), thing.replace("-", " ")))


@pytest.mark.parametrize("words", NUMBER_CASES, ids=lambda words: f"{words[0]} {words[-2]} {words[-1]!r}")
def test_numbers_out_of_range_name_their_option(capsys, words):
    option, value = words[-2:]
    line = refusal(capsys, *words)
    assert named({"-k": "--results", "--dataset": "data set", "--groups": "group"}.get(option, option), line)
    assert value in line or value == "" or "," in value


@pytest.mark.parametrize(
    "words",
    [
        (*BENCHMARK, "--image-sizes"),
        (*TRAIN, "--workers"),
        (*SEARCH, "--trials"),
        (*EVALUATE, "--epsilon"),
        (*EVALUATE, "--queries", "1", "2"),
        (*TRAIN, "--run.pgd.steps"),
        (*TRAIN, "surplus"),
        (*TRAIN, "--epoch", "3"),
        (*TRAIN, "--seeds=1"),
        ("train", "--dataset"),
        ("nonsense",),
        ("query", "--model", "run", "--gallery", "photos"),
        ("query", "photos/class0/0.png", "--model", "run"),
        ("embed", "photos"),
        ("index", "photos"),
        ("index", "nowhere", "--model", "run"),
        ("download", "mnist"),
        ("reproduce", "table9", "--results", "reproduced"),
        ("benchmark", "nonsense"),
    ],
    ids=" ".join,
)
def test_words_that_make_no_command_are_refused(capsys, words):
    refusal(capsys, *words)


BAD_NAMES = (
    "../../x", "/tmp/x", "a/b", "a\\b", "..", ".", ".hidden", "", " ", "x ", "-x", "x" * 300, "é" * 150, "a\nb", "a\tb",
    "a\x1b[31mb", "a\0b", "a\u202eb", "[/bold]", "[red]x", "a|b", "<script>alert(1)</script>", "a&b", "`id`", "$(id)", "a;b",
    "a*b", "a?b", "~", "~root", "a'b", 'a"b', "a\udcffb",
)  # fmt: skip


@pytest.mark.parametrize("option", ["--name", "--resume"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_of_a_search_stays_a_name(capsys, option, name):
    assert option in refusal(capsys, "search", "--results", "searches", f"{option}={name}")


@pytest.mark.parametrize("name", ["digits-1", "My search", "größe", "2026-11-25 03:50", "v1.2+a@b_c", "x" * 200])
def test_usual_names_are_names(name):
    assert check_name(name) == check_label(name) == name


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "a\nb", "a\x1b[31mb", "a\0b", "a\u202eb", "a\udcffb"], ids=ascii)
def test_a_label_of_a_model_is_one_line_of_text(capsys, name):
    assert "--name" in refusal(capsys, *EVALUATE, f"--name={name}")


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_what_a_plugin_registers_has_a_name(name):
    with pytest.raises(ConfigurationError, match="of a loss should be") as error:
        ct.register_loss(name)(lambda batch: 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["[/bold]", "[red]", "a|b", "<script>alert(1)</script>", "**x**", "[x](http://y)"])
def test_a_label_is_shown_as_it_is(name, capsys):
    values = dict.fromkeys(HEADLINE_SCORES, 1.0)
    entry = Entry(
        model=name, dataset=name, protocol=name, epsilon=0.1, steps=1, queries=2, benign=values, ERS=1.0, ARS=1.0, intervals={}
    )  # fmt: skip
    tokens = MarkdownIt("commonmark").enable("table").parse(tables([entry]))
    texts = [one for one in tokens if one.type == "inline"]
    kinds = {child.type for text in texts for child in text.children}
    assert kinds == {"text", "text_special"} or kinds == {"text"}
    seen = ["".join(child.content for child in text.children) for text in texts]
    assert name in seen
    assert seen[0].startswith(f"{name}, {name} protocol")
    table = Table(name, title=name)
    table.add_row(name)
    console = Terminal(width=100)
    for shown in (name, table):
        console.print(shown)
    assert capsys.readouterr().out.count(name) == 4


@pytest.mark.parametrize("sequence", ["\x1b[31m", "\x1b]0;title\x07", "\r", "\x08", "\x9b31m", "\u202e"], ids=ascii)
def test_a_terminal_obeys_nothing_in_a_name(sequence, capsys):
    Terminal().print(f"before{sequence}after")
    assert sequence not in capsys.readouterr().out


REFUSED_MODELS = {
    "constant": "same embedding for 4 different images",
    "detached": "no gradient",
    "through_numpy": "no gradient",
    "without_grad": "no gradient",
    "integer": "type torch.int64",
    "boolean": "type torch.bool",
    "complex_": "type torch.complex64",
    "pair": "returned tuple",
    "mapping": "returned dict",
    "nothing": "returned NoneType",
    "array": "returned ndarray",
    "flat": r"returned shape \(32,\)",
    "scalar": r"returned shape \(\)",
    "maps": r"returned shape \(4, 8, 1, 1\)",
    "fewer": r"returned shape \(3, 8\)",
    "no_dimension": "length differs from 1",
    "long": "length differs from 1 by 1",
    "zero": "length differs from 1",
    "nan": "NaN or infinite embeddings",
    "half_weights": "failed on images",
    "grey": r"failed on images \(4, 3, 16, 16\)",
    "many_channels": r"failed on images .* must take \[B, 3, H, W\]",
    "key_error": "failed on images",
    "own_error": "failed on images .*mine",
    "silent_error": "failed on images .*ZeroDivisionError",
    "no_way_back": "gradient of the model's embeddings cannot be computed",
    "nan_gradient": "NaN or infinite gradients",
    "batch_shape": "6 dimensions for 4 images and 3 for one",
    "big_only": "failed on images .*see --image-size",
    "no_module": "is a int",
    "raises": "ZeroDivisionError",
    "_nothing_": "AttributeError",
}


@pytest.mark.parametrize("command", ["evaluate", "surrogate"])
@pytest.mark.parametrize("model", REFUSED_MODELS)
def test_a_model_that_cannot_be_attacked_is_refused_before_any_attack(capsys, model, command):
    models = (f"mine:{model}",) if command == "evaluate" else ("mine:good", "--surrogate", f"mine:{model}")
    words = ("evaluate", "--model", *models, "--dataset", "folder", "--data-root", "photos", *SMALL, "--output", "out")
    assert re.search(REFUSED_MODELS[model], refusal(capsys, *words))


@pytest.mark.parametrize("model", ["half", "bfloat"])
def test_half_embeddings_are_attacked_in_full_precision(model, capsys, tmp_path):
    words = ("--model", f"mine:{model}", "--dataset", "folder", "--data-root", "photos", *SMALL, "--json")
    with pytest.raises(SystemExit) as ended:
        run("evaluate", [*words, "--output", str(tmp_path / "out"), "--example-queries", "0"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attacked"]["CA+"] != 50


MODEL_FILES = {
    "dict.pt": "a pickle of torch.save is never read",
    "module.pt": "a pickle of torch.save is never read",
    "binary": "is not a TorchScript file",
    "text.yaml": "is not a TorchScript file",
    "text.pt2": "is not an exported program",
    "zip.pt2": "is not an exported program",
    "pipe.pt": "is not there",
    "missing.pt": "is not there",
    "empty": "is not a run",
    "photos": "is not a run",
    "": "is not a run",
    "mlmodel": "is a pickle",
    "s3://bucket/model": "is a pickle",
    "models://profile@databricks/x/1": "is a pickle",
    "file:///tmp/model": "is a pickle",
    "mlflow-artifacts:/x": "is a pickle",
    "os:getcwd": "is a str",
    "os:nothing": "AttributeError",
    "no.such.module:net": "ModuleNotFoundError",
    "mine:good()": "is not there",
    "mine:": "is not there",
    ":good": "cannot be made|is not there",
    "https://example.org/net.pt": "is not there",
    "x" * 5000: "is too long",
}


@pytest.mark.parametrize("model", MODEL_FILES, ids=lambda model: model[:30])
def test_what_is_no_model_is_refused_by_every_command(capsys, model):
    words = ("evaluate", "--model", model, "--dataset", "folder", "--data-root", "photos", *SMALL, "--output", "out")
    line = refusal(capsys, *words)
    assert re.search(MODEL_FILES[model], line)
    assert ("--trust" in line) == ("is a pickle" in line)
    query = ("query", "photos/class0/0.png", "--gallery", "photos")
    for command in (("embed", "photos", "--out", "e.npy"), ("index", "photos", "--out", "p.index"), query):
        refusal(capsys, *command, "--model", model)


@pytest.mark.parametrize("store", ["http://mlflow.example.org", "https://127.0.0.1.example.org", "file://host/mlruns"])
def test_a_model_of_a_store_elsewhere_has_to_be_trusted(capsys, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    words = ("evaluate", "--model", "models:/net/1", "--dataset", "folder", "--data-root", "photos", "--output", "out")
    assert "--trust" in refusal(capsys, *words)


FILES = ("missing", "empty", "binary", "text.yaml", "latin.yaml", "pipe", "pipe.yaml", "photos/class0/0.png", "x" * 300)
FILE_OPTIONS = [
    (*TRAIN[:1], *TRAIN[3:], "--config"),
    (*SEARCH, "--space"),
    (*SEARCH, "--start-from"),
    (*QUERY[:4], "--index"),
    ("leaderboard", "table"),
    ("leaderboard", "build"),
    ("leaderboard", "record"),
    ("leaderboard", "--model", "nowhere", "check"),
    ("sync",),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file[:20])
@pytest.mark.parametrize("words", FILE_OPTIONS, ids=lambda words: f"{words[0]} {words[-1]}")
def test_a_file_that_is_something_else_is_refused(capsys, words, file):
    if words == ("sync",) and os.path.isdir(file):
        pytest.skip("a folder without records has nothing to send")
    line = refusal(capsys, *words, file)
    assert file[:100] in line


@pytest.fixture
def table(tmp_path):
    """Writes a manifest of the photographs with one column changed, and evaluates it."""
    paths = [str(path) for path in sorted(Path("photos").absolute().rglob("*.png"))]
    return {"path": paths, "label": [Path(path).parent.name for path in paths]}


def with_first(values, first):
    return [first, *values[1:]]


TABLES = {
    "integer paths": lambda t: t | {"path": list(range(12))},
    "bytes paths": lambda t: t | {"path": [path.encode() for path in t["path"]]},
    "list paths": lambda t: t | {"path": [[path] for path in t["path"]]},
    "float paths": lambda t: t | {"path": [0.5] * 12},
    "boolean paths": lambda t: t | {"path": [True] * 12},
    "no path": lambda t: t | {"path": with_first(t["path"], None)},
    "empty path": lambda t: t | {"path": with_first(t["path"], "")},
    "path of a folder": lambda t: t | {"path": with_first(t["path"], "photos")},
    "path of a pipe": lambda t: t | {"path": with_first(t["path"], str(Path("pipe").absolute()))},
    "path of a device": lambda t: t | {"path": with_first(t["path"], "/dev/zero")},
    "path with a null": lambda t: t | {"path": with_first(t["path"], "a\0b")},
    "long path": lambda t: t | {"path": with_first(t["path"], LONG)},
    "missing picture": lambda t: t | {"path": with_first(t["path"], "missing.png")},
    "no picture": lambda t: t | {"path": with_first(t["path"], str(Path("binary").absolute()))},
    "no label": lambda t: t | {"label": with_first(t["label"], None)},
    "list labels": lambda t: t | {"label": [[label] for label in t["label"]]},
    "bytes labels": lambda t: t | {"label": [label.encode() for label in t["label"]]},
    "boolean labels": lambda t: t | {"label": [True, False] * 6},
    "no column of labels": lambda t: {"path": t["path"]},
    "no column of paths": lambda t: {"label": t["label"]},
    "other split": lambda t: t | {"split": ["valid"] * 12},
    "integer split": lambda t: t | {"split": [0] * 12},
    "no rows": lambda t: {"path": [], "label": []},
    "one class": lambda t: t | {"label": ["one"] * 12},
    "a single image": lambda t: t | {"label": with_first(t["label"], "alone")},
    "all single": lambda t: t | {"label": list(range(12))},
    "only training": lambda t: t | {"split": ["train"] * 12},
    "both splits": lambda t: {
        "path": t["path"] * 2,
        "label": t["label"] * 2,
        "split": ["train"] * 12 + ["test"] * 12,
    },
}


def evaluate_table(path):
    return ("evaluate", "--model", "mine:good", "--dataset", "manifest", "--data-root", path, *SMALL, "--output", "out")


@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_lists_no_pictures_is_refused(capsys, what, table, tmp_path):
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table(TABLES[what](table)), path)
    refusal(capsys, *evaluate_table(path))


TABLE_BYTES = {
    "latin": "path,label\nphotos/größe.png,größe\n".encode("latin-1"),
    "doubled": b"path,path,label\na.png,b.png,x\n",
    "doubled label": b"path,label,label\na.png,x,y\n",
    "ragged": b"path,label\na.png\nb.png,x,y\n",
    "empty": b"",
    "only a head": b"path,label\n",
    "no head": b"a.png,x\nb.png,y\n",
    "binary": bytes(range(256)),
    "null": b"path,label\na\0.png,x\n",
    "utf-16": "path,label\na.png,x\n".encode("utf-16"),
    "quotes": b'path,label\n"a.png,x\n',
    "semicolons": b"path;label\na.png;x\n",
    "json": b'{"path": "a.png"}',
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".txt", ""])
@pytest.mark.parametrize("what", TABLE_BYTES)
def test_a_file_that_is_no_table_is_refused(capsys, what, suffix, tmp_path):
    path = tmp_path / f"table{suffix}"
    path.write_bytes(TABLE_BYTES[what])
    refusal(capsys, *evaluate_table(path))


@pytest.mark.parametrize("place_of_table", ["pipe", "empty", "missing.csv", "/dev/zero"])
def test_a_table_that_is_no_file_is_refused(capsys, place_of_table):
    refusal(capsys, *evaluate_table(place_of_table))


def test_doubled_columns_of_parquet_are_refused(capsys, tmp_path):
    columns = [pa.array(["a.png"]), pa.array(["b.png"]), pa.array(["x"])]
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table(columns, names=["path", "path", "label"]), path)
    assert "2 columns path" in refusal(capsys, *evaluate_table(path))


def deep(path):
    Image.fromarray(np.full((20, 20), 40000, dtype=np.uint16)).save(path)


def floating(path):
    Image.fromarray(np.full((20, 20), 0.5, dtype=np.float32)).save(path, format="TIFF")


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def bomb(path):
    Image.new("1", (20000, 20000)).save(path, format="PNG")


PICTURES = {
    "16 bits": (deep, "more than 8 bits"),
    "floating point": (floating, "more than 8 bits"),
    "cut": (cut, "cannot be decoded"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be decoded"),
    "text": (lambda path: path.write_text("no picture"), "cannot be decoded"),
    "too large": (bomb, "cannot be decoded"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
    "dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "not a regular file"),
    "link to a pipe": (lambda path: (path.unlink(), path.symlink_to(Path("pipe").absolute())), "not a regular file"),
}


@pytest.mark.parametrize("what", PICTURES)
def test_a_picture_that_is_none_is_refused_by_every_command(capsys, what, tmp_path):
    change, complaint = PICTURES[what]
    shutil.copytree("photos", tmp_path / "photos")
    bad = tmp_path / "photos" / "class0" / "0.png"
    change(bad)
    words = ("evaluate", "--model", "mine:good", "--dataset", "folder", "--data-root", tmp_path / "photos", *SMALL)
    line = refusal(capsys, *words, "--output", "out")
    assert complaint in line
    assert str(bad) in line
    assert str(bad) in refusal(capsys, "query", bad, *QUERY[2:])


def test_a_picture_whose_name_is_no_text_is_refused(capsys, tmp_path):
    shutil.copytree("photos", tmp_path / "photos")
    os.rename(tmp_path / "photos/class0/0.png", os.fsencode(tmp_path / "photos/class0/") + b"/\xff.png")
    words = ("evaluate", "--model", "mine:good", "--dataset", "folder", "--data-root", tmp_path / "photos", *SMALL)
    assert "not UTF-8" in refusal(capsys, *words, "--output", "out")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(orientation, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: np.rot90(pixels, 1), 7: np.rot90(pixels, 2).transpose(1, 0, 2), 8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    Image.fromarray(np.ascontiguousarray(seen)).save(tmp_path / "turned.png", exif=exif)
    assert (decode(tmp_path / "turned.png", 20) == pixels.transpose(2, 0, 1)).all()


def test_no_other_file_makes_a_console_of_its_own():
    """What shows texts as they are is in one place."""
    root = Path(ct.__file__).parent
    sources = [*root.rglob("*.py"), *(root / "tune").glob("*.py"), *(root.parent / "scripts").rglob("*.py")]
    assert [path.name for path in sources if re.search(r"\bConsole\(", path.read_text())] == []
