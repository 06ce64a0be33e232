"""The benchmarks of the search: in earnest, replayed on a measured table, and with trials that train nothing.

Ray, Optuna and the search take seconds to import: each function imports what it needs.
"""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from colotride.cli.options.benchmark import Benchmark
from colotride.errors import ConfigurationError
from colotride.terminal import Terminal
from scripts.benchmarks.terminal import machine, show

if TYPE_CHECKING:
    from scripts.benchmarks.comparison import MethodRow, ShareOfBudget

SEARCH_EPOCHS = 6
"""Of each trial of a search."""


def search(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Random search, and TPE with ASHA, on digits at one budget of epochs."""
    from colotride.distributed.ray_cluster import start_ray
    from colotride.presets import preset
    from scripts.benchmarks.search import METHODS, compare, draw_comparison
    from scripts.benchmarks.tracking import seconds_per_epoch

    base = preset("digits").with_values({"training.epochs": SEARCH_EPOCHS, "validation.first_share": 0.5})
    start_ray()
    with Terminal(stderr=True).status("search") as status:
        courses = compare(
            base,
            trials=command.trials,
            seeds=range(command.seeds),
            at_once=min(2, os.cpu_count() or 1),
            on_search=partial(show, status, "search"),
        )
        show(status, "search", "recording")
        with tempfile.TemporaryDirectory() as folder:
            recording = seconds_per_epoch(f"sqlite:///{folder}/mlflow.db", 200)
    training = sum(course.training for course in courses) / sum(course.epochs[-1] for course in courses)
    budget = command.trials * SEARCH_EPOCHS
    draw_comparison(courses, budget, command.output / "search.png")
    table = Table(
        title=f"Searches on digits, {budget} epochs each, {command.seeds} seeds",
        caption="best: validation ARS, mean and standard error over the seeds; overhead: seconds per trial beside training",
    )
    for heading in ("method", "best", "over default", "trials", "epochs saved", "seconds", "overhead"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method in METHODS:
        chosen = [course for course in courses if course.method == method]
        last = torch.tensor([course.best[-1] for course in chosen])
        gain = last - torch.tensor([course.default for course in chosen])
        table.add_row(
            method,
            _with_error(last),
            _with_error(gain),
            f"{sum(course.trials for course in chosen) / len(chosen):.1f}",
            f"{sum(course.saved for course in chosen) / len(chosen):.0%}",
            f"{sum(course.seconds for course in chosen) / len(chosen):.0f}",
            f"{sum(course.overhead for course in chosen) / len(chosen):.1f}",
        )
    said = (
        f"Recording an epoch in MLflow takes {1000 * recording:.2f} ms, {recording / training:.2%} of an epoch.\n"
        f"Measured on {machine(device)}."
    )
    values = [*map(asdict, courses), {"recording_seconds": recording, "epoch_seconds": training}]
    return Group(table, said), values


def table(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Configurations that are trained and tested, so that searches can be replayed on them."""
    from scripts.benchmarks.table import TABLES, describe, load_table, measure_table, save_table

    shipped = TABLES / f"{command.dataset}.parquet"
    target = command.output / "table" / f"{command.dataset}.parquet"
    # A table that is named has to be there.
    start = command.table or next((path for path in (target, shipped) if path.is_file()), None)
    with Terminal(stderr=True).status("table") as status:
        measured = measure_table(
            command.dataset,
            command.configurations,
            command.seeds,
            command.output / "table" / command.dataset,
            data_root=command.data_root,
            known=None if start is None else load_table(start, command.dataset),
            processes=max(command.workers),
            on_run=partial(show, status, "table"),
        )
    save_table(measured, command.dataset, target)
    rows = describe(measured)
    shown = Table(title=f"Configurations on {command.dataset}", caption="ARS: means over the seeds, in %")
    for heading in rows[0]:
        shown.add_column(heading, justify="left" if heading == "space" else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    return Group(shown, f"The table is in {target}."), rows


def replays(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Hundreds of searches per method, replayed on a measured table."""
    from scripts.benchmarks.comparison import PICTURED, REFERENCES, draw_replays, replay_all, share_of_budget
    from scripts.benchmarks.replay import METHODS
    from scripts.benchmarks.table import TABLES, load_table

    for name in command.methods:
        if name not in METHODS:
            raise ConfigurationError(f"no way to search is called {name!r}; there are: {'; '.join(METHODS)}")
    measured = load_table(command.table or TABLES / f"{command.dataset}.parquet", command.dataset)
    with Terminal(stderr=True).status("replay") as status:
        rows, courses = replay_all(
            measured,
            command.dataset,
            (command.trials, 3 * command.trials),
            command.repetitions,
            methods=command.methods or tuple(METHODS),
            surrogate=command.surrogate,
            processes=os.cpu_count() or 1,
            on_run=partial(show, status, "replay"),
        )
    names = {one.method for one in courses}
    draw_replays(courses, [name for name in PICTURED if name in names] or sorted(names), command.output / "replay.png")
    tables = [
        _replay_table(command.dataset, [one for one in rows if one.space == space])
        for space in dict.fromkeys(row.space for row in rows)
    ]
    references = [name for name in REFERENCES if name in names]
    shares = {
        (one.space, one.method): [share_of_budget(courses, name, one.method, one.space) for name in references]
        for one in courses
    }
    if references:
        tables.append(_share_table(references, shares))
    values = [
        asdict(row) | {"shares": dict(zip(references, map(_finite, shares[row.space, row.method]), strict=True))}
        for row in rows
    ]
    return Group(*tables), values


def _replay_table(dataset: str, rows: Sequence["MethodRow"]) -> Table:
    shown = Table(
        title=f"Searches replayed on {dataset}, {rows[0].space} space",
        caption="regret: validation and test ARS below the best configuration's; gain: test ARS over the default's; "
        f"better: % of winners above it ({rows[0].by_chance:.0%} of all configurations are); 95 % intervals",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("method", "budget", "regret", "test", "gain", "better"):
        shown.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for row in rows:
        least, most = row.better_interval
        shown.add_row(
            row.method,
            str(row.budget),
            f"{row.regret:.2f} ± {row.regret_interval[1] - row.regret:.2f}",
            f"{row.test_regret:.1f}",
            f"{row.gain:+.1f} ± {row.gain_interval[1] - row.gain:.1f}",
            f"{100 * row.better:.0f} [{100 * least:.0f}, {100 * most:.0f}]",
        )
    return shown


def _share_table(references: Sequence[str], shares: Mapping[tuple[str, str], Sequence["ShareOfBudget"]]) -> Table:
    spent = Table(
        title="Share of the larger budget after which a method had found what a reference finds with the whole"
    )
    for heading in ("space", "method", *references):
        spent.add_column(heading, justify="right" if heading in references else "left")
    for (space, method), found in shares.items():
        cells = (f"{one.share:.0%} [{one.low:.0%}, {one.high:.0%}]".replace("inf%", "never") for one in found)
        spent.add_row(space, method, *cells)
    return spent


def _finite(share: Any) -> dict[str, float | None]:
    # JSON knows no infinity.
    return {name: value if math.isfinite(value) else None for name, value in asdict(share).items()}


def engine(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Trials that train nothing, many at once, and a study of many trials."""
    from scripts.benchmarks.engine import measure_engine, measure_study

    with Terminal(stderr=True).status("engine") as status:
        on_run = partial(show, status, "engine")
        on_run(f"{command.trials} trials, {command.concurrent} at once")
        driven = measure_engine(command.trials, command.concurrent)
        studies = measure_study(command.studies, on_run)
    drives = Table(title="Trials that sleep for ten epochs of a second")
    for heading in ("trials", "at once", "seconds", "start", "busy", "overhead, s a trial", "driver, MiB"):
        drives.add_column(heading, justify="right")
    drives.add_row(
        str(driven.trials),
        str(driven.at_once),
        f"{driven.seconds:.0f}",
        f"{driven.start:.0f}",
        f"{driven.busy:.0%}",
        f"{driven.overhead:.1f}",
        str(driven.driver_mib),
    )
    held = Table(
        title="A study on disk (TPE, ASHA)",
        caption="means over the newest 50 trials, in milliseconds; those before were drawn at random",
    )
    for heading in ("trials", "draw", "report an epoch", "open, s", "journal, MiB", "driver, MiB"):
        held.add_column(heading, justify="right")
    for row in studies:
        held.add_row(
            f"{row.trials:,}",
            f"{1000 * row.draw:.0f}",
            f"{1000 * row.report:.1f}",
            f"{row.open:.1f}",
            f"{row.journal_mib:.0f}",
            str(row.driver_mib),
        )
    return Group(drives, held, f"Measured on {machine(device)}."), [asdict(driven), *map(asdict, studies)]


def _with_error(values: torch.Tensor) -> str:
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{float(values.mean()):.1f} ± {error:.1f}"
