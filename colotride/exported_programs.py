"""Exported programs (.pt2) that carry nothing but operators of torch and their weights.

`torch.export.load` unpickles members of an archive, loads native libraries from it and executes text that is written
in it as Python: guards, symbolic sizes, names. Only an archive without any of these is loaded unasked.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import torch

_MEMBERS = re.compile(
    r"models/\w+\.json|data/sample_inputs/\w+\.pt|data/(weights|constants)/(\w+_config\.json|(weight|tensor)_\d+)"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
)
"""What `torch.export.save` writes for a plain model."""

_CONFIG = re.compile(r"data/(weights|constants)/\w+_config\.json")
_RAW = re.compile(r"(weight|tensor)_\d+")

_PLAIN = re.compile(r"[\w.+-]*")
"""Any text of a program but the following, and any key: names, versions, types."""

_TARGET = re.compile(
    r"torch\.ops\.(?!_)(?!\w*\.from_file)\w+\.\w+(\.\w+)?|torch\.sym_\w+|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|and_|or_|not_|eq|ne|lt|le|gt|ge|getitem)"
)
"""Operators: no other function of torch, some of which read files or load libraries."""

_SIZE = re.compile(r"([A-Za-z]\w*+\(|'[\w.]*+'|[a-z]\w*+=|\d++|True|False|true|false|[\s(),-])*")
"""An expression of sizes, as SymPy writes it: Add(Symbol('s0', integer=True), Integer(1))."""

_GUARD = re.compile(
    r"(L\['\w++'\](\[\d++\])*+\.size\(\)\[\d++\]|math\.[a-z]\w*+|torch\.sym_\w++|\d++(\.\d++)?+|and|or|not|[\s()<>=!+*/%,-])*"
)
"""A condition on sizes: L['x'].size()[0] >= 2."""

_TREE = re.compile(r"[\w.\s{}\[\]:,\"\\-]*")
"""A structure of arguments, as JSON."""

_TEXTS = {"target": _TARGET, "expr_str": _SIZE, "guards_code": _GUARD, "in_spec": _TREE, "out_spec": _TREE}
"""What may be in each text of a program, by its key."""


def what_is_not_plain(file: IO[bytes]) -> str | None:
    """What makes an archive more than operators and weights, in a few words; None where there is nothing.

    Args:
        file: the archive; read from its beginning.

    Raises:
        RuntimeError, ValueError, KeyError, AssertionError: the file is no archive of an exported program.
    """
    # It brings torch's compiler with it: seconds, which other models need not wait for.
    from torch.export.pt2_archive import PT2ArchiveReader

    with zipfile.ZipFile(file) as content:
        # Older archives are read by another reader, which unpickles all of them.
        if any(name.startswith("serialized_") for name in content.namelist()):
            return "is of an old format, which is pickled"
    file.seek(0)
    # By torch's own reader, so that both see the same members.
    reader = PT2ArchiveReader(file)
    names = reader.get_file_names()
    other = next((name for name in names if not _MEMBERS.fullmatch(name)), None)
    if other is not None:
        return f"holds {other!r}, which is neither weights nor operators"
    for name in names:
        if _CONFIG.fullmatch(name):
            for entry in json.loads(reader.read_string(name))["config"].values():
                if entry["use_pickle"] is not False or not _RAW.fullmatch(entry["path_name"]):
                    return f"holds a pickled member, {entry['path_name']!r}"
        elif name.startswith("data/sample_inputs/") and not _is_data(reader.read_bytes(name)):
            return f"holds a pickled member, {name!r}"
        elif name.startswith("models/"):
            odd = next(_odd_texts(json.loads(reader.read_string(name)), ""), None)
            if odd is not None:
                return f"holds text that would be executed, {odd[:60]!r}"
    return None


def _is_data(pickled: bytes) -> bool:
    try:
        torch.load(io.BytesIO(pickled), map_location="cpu", weights_only=True)
    except Exception:
        # Whatever the restricted reader cannot read, torch.export would hand to pickle.
        return False
    return True


def _odd_texts(value: Any, key: str) -> Iterator[str]:
    """Texts of a program that could be more than they should be; where a node comes from is only shown."""
    if isinstance(value, dict):
        for inner, one in value.items():
            if not _PLAIN.fullmatch(inner):
                yield inner
            if inner != "metadata":
                yield from _odd_texts(one, inner)
    elif isinstance(value, list):
        for one in value:
            yield from _odd_texts(one, key)
    elif isinstance(value, str) and (
        not _TEXTS.get(key, _PLAIN).fullmatch(value) or "__enum__" in value or "default_factory" in value
    ):
        yield value
