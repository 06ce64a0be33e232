"""Show in a browser what an attack does to the results of one model, or of two side by side.

Examples:
    colotride demo --model runs/robust --against runs/natural
"""

import os
from pathlib import Path

from rich.console import Console

from colotride.cli.options.demo import Demo
from colotride.demo.comparison import open_runs
from colotride.demo.server import DemoServer
from colotride.devices import device_of
from colotride.errors import ConfigurationError
from colotride.hub.address import local_copy
from colotride.markdown import printable
from colotride.terminal import Terminal


def main(options: Demo) -> int:
    """Open the page, and answer it until Ctrl-C.

    Raises:
        ConfigurationError: the port is taken, or the host is not this machine.
    """
    console = Terminal(stderr=True)
    specs = [options.model] + ([] if options.against is None else [options.against])
    names = [Path(spec).name for spec in specs]
    if len(set(names)) < len(names):
        # Folders of one name are told apart by the whole path.
        names = specs
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--against {options.against} is the model itself; give another run")
    runs = {name: local_copy(spec) for name, spec in zip(names, specs, strict=True)}
    root = options.data_root or os.environ.get("COLOTRIDE_DATA")
    with console.status("loading") as status:
        comparison = open_runs(
            runs,
            data_root=root,
            most=options.pictures,
            device=device_of(options.device),
            progress=lambda what, share: status.update(f"{what}: {share:.0%}"),
        )
    try:
        server = DemoServer((options.host, options.port), comparison, steps=options.steps)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {options.host}:{options.port} ({error.strerror}); choose another --port, or 0 for any"
        ) from None
    _announce(console, server, list(runs))
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("closed")
    finally:
        server.server_close()
    return 0


def _announce(console: Console, server: DemoServer, names: list[str]) -> None:
    print(f"{printable(' against '.join(names))}: {server.url}", flush=True)
    if not server.loopback:
        console.print("Everybody who reaches this machine can open the page, and make it compute.")
    console.print("Ctrl-C closes it.")
