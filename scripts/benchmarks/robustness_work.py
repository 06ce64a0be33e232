"""The benchmark of robustness for its price, as the command shows it."""

from functools import partial
from typing import Any

import torch
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from colotride.cli.options.benchmark import Benchmark
from colotride.config import load_config
from colotride.errors import ConfigurationError
from colotride.presets import preset, with_data_root, with_defense
from colotride.terminal import Terminal
from scripts.benchmarks.robustness import SCHEMES, as_values, draw_robustness, measure_robustness
from scripts.benchmarks.terminal import machine, show


def robustness(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Ways to perturb, by ARS and by what they cost."""
    for name in command.methods:
        if name not in SCHEMES:
            raise ConfigurationError(f"no way to perturb is called {name!r}; there are: {'; '.join(SCHEMES)}")
    base = load_config(command.config) if command.config else preset(command.dataset)
    for name in command.defenses:
        with_defense(base, name)
    with Terminal(stderr=True).status("robustness") as status:
        rows = measure_robustness(
            with_data_root(base, command.data_root),
            command.defenses,
            command.methods or tuple(SCHEMES),
            command.seeds,
            command.queries,
            command.output / "robustness",
            processes=max(command.workers),
            on_run=partial(show, status, "robustness"),
        )
    draw_robustness(rows, command.output / "robustness.png")
    tables = []
    for defense in dict.fromkeys(row.defense for row in rows):
        table = Table(
            title=f"{defense} on {base.data.name}, {command.seeds} {'seed' if command.seeds == 1 else 'seeds'}",
            caption="passes: images through the network in training; difference: ARS less the preset's, paired by seed",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for heading in ("perturbation", "passes", "seconds", "R@1", "ARS", "difference"):
            table.add_column(heading, justify="left" if heading == "perturbation" else "right")
        for row in (one for one in rows if one.defense == defense):
            lost = f" ({row.lost} lost)" if row.lost else ""
            table.add_row(
                row.scheme + lost,
                f"{row.passes:,.0f}",
                f"{row.seconds:.0f}",
                f"{row.scores['R@1']:.1f}",
                f"{row.scores['ARS']:.1f} ± {row.deviation:.1f}",
                "" if row.difference is None else str(row.difference),
            )
        tables.append(table)
    return Group(*tables, f"Measured on {machine(device)}."), as_values(rows)
