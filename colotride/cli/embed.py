"""Embed the pictures of a folder, and write one row per picture.

Examples:
    colotride embed photos/ --model runs/first --out embeddings.parquet
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from rich.console import Console
from torch import Tensor

from colotride.api import load
from colotride.cli.options.embed import Embed
from colotride.disk import check_file
from colotride.embedder import Embedder
from colotride.errors import ConfigurationError, DataError
from colotride.index import embed_decodable, pictures_in
from colotride.io import write_atomically
from colotride.registry import load_plugin
from colotride.terminal import Terminal

BATCH = 64
"""Pictures per pass through the network."""


def main(options: Embed) -> int:
    """Embed as the options say; the exit code is 0 even where single pictures were skipped, which is told.

    Raises:
        ConfigurationError: the output is neither .parquet nor .npy.
        DataError: no pictures, or none that can be decoded.
    """
    if options.out.suffix not in (".parquet", ".npy"):
        raise ConfigurationError(f"--out {options.out} is neither a .parquet nor a .npy file")
    for module in options.plugin:
        load_plugin(module)
    check_file(options.out)
    paths = pictures_in(options.folder)
    console = Terminal(stderr=True)
    skipped: list[tuple[str, str]] = []
    found = _embedded(load(options.model, device=options.device, trust=options.trust), paths, skipped, console)
    if not found:
        raise DataError(f"none of the {len(paths)} pictures can be embedded; the first: {skipped[0][1]}")
    embeddings = torch.stack([embedding for _, embedding in found])
    write_atomically(options.out, _content(options.out, [path for path, _ in found], embeddings))
    for _, reason in skipped:
        console.print(f"skipped: {reason}", soft_wrap=True)
    if options.as_json:
        about = {"out": str(options.out), "pictures": len(found), "dimensions": embeddings.shape[1]}
        print(json.dumps(about | {"skipped": dict(skipped)}))
    else:
        print(f"{len(found)} embeddings of {embeddings.shape[1]} dimensions are in {options.out}")
    return 0


def _embedded(
    net: Embedder, paths: list[str], skipped: list[tuple[str, str]], console: Console
) -> list[tuple[str, Tensor]]:
    found = []
    with console.status("embedding") as status:
        for start in range(0, len(paths), BATCH):
            found += embed_decodable(net, paths[start : start + BATCH], skipped)
            status.update(f"embedding: {min(start + BATCH, len(paths))} of {len(paths)} pictures")
    return found


def _content(out: Path, paths: list[str], embeddings: Tensor) -> bytes:
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, embeddings.numpy())
    else:
        flat = pa.array(embeddings.flatten().numpy())
        columns = {"path": paths, "embedding": pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])}
        parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()
