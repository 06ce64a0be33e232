"""Exported programs that would run code when they are loaded: refused unasked, loaded with trust."""

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from colotride.errors import ModelError
from colotride.external_models import load_external_model

MARK = Path("it-ran")


class Runs:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (MARK,)


CODE = f"__import__('pathlib').Path('{MARK}').touch()"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An archive as torch.export writes it, with symbolic sizes, guards and a constant."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.constant = nn.Linear(3, 5), torch.ones(5)

        def forward(self, images):
            smaller = nn.functional.interpolate(images, scale_factor=0.5)
            return nn.functional.normalize(self.linear(smaller.mean(dim=(2, 3))) + self.constant, dim=1)

    path = tmp_path_factory.mktemp("plain") / "net.pt2"
    sizes = ({0: torch.export.Dim("batch", min=1), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.export.save(torch.export.export(Net().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=sizes), path)
    return path


def rewritten(archive, change, added=None):
    """An archive of the same members in which some have another content."""
    with zipfile.ZipFile(archive) as old:
        members = {name: change(name, old.read(name)) for name in old.namelist()} | (added or {})
    Path("changed.pt2").unlink(missing_ok=True)
    with zipfile.ZipFile("changed.pt2", "w", zipfile.ZIP_STORED) as new:
        for name, content in members.items():
            new.writestr(name, content)
    return "changed.pt2"


def program(change):
    """A change of the program's JSON."""

    def of(name, content):
        if not name.endswith("models/model.json"):
            return content
        tree = json.loads(content)
        change(tree)
        return json.dumps(tree)

    return of


def texts(tree, key):
    """Every dictionary below a tree that has this key."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from texts(one, key)


def with_guard(tree):
    assert tree["guards_code"]
    tree["guards_code"][0] = f"{CODE} is None"


def with_size(tree):
    for one in texts(tree, "expr_str"):
        one["expr_str"] = f"[{CODE}, {one['expr_str']}][1]"


def with_input(tree):
    graph = tree["graph_module"]["graph"]
    written = json.dumps(graph).replace('"images"', json.dumps(f"images={CODE}"))
    tree["graph_module"]["graph"] = json.loads(written)


def with_function(tree):
    node = tree["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.ops.load_library"


def pickled(name, content):
    if "/sample_inputs/" not in name:
        return content
    buffer = io.BytesIO()
    torch.save((((Runs(),), {})), buffer)
    return buffer.getvalue()


def pickled_weight(name, content):
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    if name.endswith("model_weights_config.json"):
        tree = json.loads(content)
        next(iter(tree["config"].values()))["use_pickle"] = True
        return json.dumps(tree)
    return buffer.getvalue() if name.endswith("/weight_0") else content


def opaque(name, content):
    if not name.endswith("model_constants_config.json"):
        return content
    tree = json.loads(content)
    entry = next(iter(tree["config"].values()))
    entry |= {"path_name": "opaque_obj_0", "use_pickle": True}
    return json.dumps(tree)


CHANGES = {
    "guard": (program(with_guard), {}),
    "size": (program(with_size), {}),
    "input": (program(with_input), {}),
    "function": (program(with_function), {}),
    "sample inputs": (pickled, {}),
    "weight": (pickled_weight, {}),
    "constant": (opaque, {"net/data/constants/opaque_obj_0": pickle.dumps(Runs())}),
    "library": (lambda name, content: content, {"net/data/aotinductor/model/evil.so": b"\x7fELF"}),
    "old format": (lambda name, content: content, {"serialized_state_dict.pt": b"", "version": b"1"}),
}
RUNS = ("guard", "size", "sample inputs", "weight", "constant")
"""Those that need nothing else to run code, and do when they are trusted."""


@pytest.fixture(autouse=True)
def _there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_plain_program_is_loaded_unasked_and_quietly(plain, capfd):
    embeddings = load_external_model(str(plain))(torch.rand(3, 3, 6, 6))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("what", CHANGES)
def test_a_program_that_would_run_code_is_refused_with_the_reason(plain, what):
    changed = rewritten(plain, *CHANGES[what])
    with pytest.raises(ModelError, match=r"could run any code .* give --trust if you trust its source") as error:
        load_external_model(changed)
    assert "\n" not in str(error.value)
    assert not MARK.exists()


@pytest.mark.parametrize("what", RUNS)
def test_what_is_refused_would_have_run_code(plain, what):
    changed = rewritten(plain, *CHANGES[what])
    # Code has run before the loader notices that something is amiss.
    with contextlib.suppress(ModelError):
        load_external_model(changed, trust=True)(torch.rand(2, 3, 8, 8))
    assert MARK.exists()


@pytest.mark.parametrize("make", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
def test_a_pickle_is_never_read_as_torchscript_whatever_it_is_called(make):
    for name in ("net.pt", "net.pth", "net.pkl"):
        make(Runs(), name)
        with pytest.raises(ModelError, match=r"a pickle of torch.save is never read"):
            load_external_model(name, trust=True)
    assert not MARK.exists()
