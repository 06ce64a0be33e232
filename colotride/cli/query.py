"""Find the pictures that are most similar to one picture.

Examples:
    colotride query cat.jpg --model runs/first --gallery photos/ --index photos.index
    colotride query cat.jpg --model runs/first --index photos.index
"""

import json

from rich.console import Console

from colotride.api import load
from colotride.cli.index import build_index
from colotride.cli.options.query import Query
from colotride.disk import check_file
from colotride.embedder import Embedder
from colotride.errors import ConfigurationError
from colotride.index import Index
from colotride.markdown import printable
from colotride.registry import load_plugin
from colotride.terminal import Terminal


def main(options: Query) -> int:
    """Search as the options say, and print a line per picture, the nearest first.

    Raises:
        ConfigurationError: neither a gallery nor an index.
    """
    if options.gallery is None and options.index is None:
        raise ConfigurationError("nothing to search: give --gallery FOLDER, or the --index of an earlier search")
    for module in options.plugin:
        load_plugin(module)
    if options.gallery is not None and options.index is not None:
        check_file(options.index)
    console = Terminal(stderr=True)
    index = _index(load(options.model, device=options.device, trust=options.trust), options, console)
    found = index.query(options.picture, k=options.results)
    if options.as_json:
        print(json.dumps([{"path": path, "distance": distance} for path, distance in found]))
    else:
        for path, distance in found:
            print(f"{distance:.4f}  {printable(path)}")
    return 0


def _index(net: Embedder, options: Query, console: Console) -> Index:
    if options.gallery is None:
        assert options.index is not None
        return Index.load(options.index, net)
    # A graph takes longer to build than one query takes without it.
    index = build_index(net, options.gallery, console, "exact" if options.index is None else "auto")
    if options.index is not None:
        index.save(options.index)
    return index
