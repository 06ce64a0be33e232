"""Index the pictures of a folder.

Examples:
    colotride index photos/ --model runs/first --out photos.index
"""

import json

from rich.console import Console

from colotride.api import load
from colotride.cli.options.index import Index as IndexOptions
from colotride.disk import check_file
from colotride.embedder import Embedder, Picture
from colotride.index import Index, Kind
from colotride.registry import load_plugin
from colotride.terminal import Terminal


def main(options: IndexOptions) -> int:
    """Index as the options say; the exit code is 0 even where single pictures were skipped, which is told.

    Raises:
        DataError: no pictures, or none that can be decoded.
    """
    for module in options.plugin:
        load_plugin(module)
    check_file(options.out)
    net = load(options.model, device=options.device, trust=options.trust)
    index = build_index(net, options.folder, Terminal(stderr=True), options.kind)
    index.save(options.out)
    if options.as_json:
        about = {"out": str(options.out), "pictures": len(index), "kind": index.kind}
        print(json.dumps(about | {"skipped": dict(index.skipped)}))
    else:
        print(f"{len(index)} pictures are in {options.out} ({index.kind})")
    return 0


def build_index(net: Embedder, folder: Picture, console: Console, kind: Kind = "auto") -> Index:
    """Index a folder, and show the progress and what is skipped."""
    with console.status("indexing") as status:
        index = Index.build(
            net,
            folder,
            kind=kind,
            on_progress=lambda done, total: status.update(f"indexing: {done} of {total} pictures"),
        )
    for _, reason in index.skipped:
        console.print(f"skipped: {reason}", soft_wrap=True)
    return index
