"""Measure speed as ratios, side by side in one process.

Examples:
    colotride benchmark step
    colotride benchmark step --device cuda --image-sizes 224 --triplets 56 --precision bfloat16 --compile
    colotride benchmark profile
    colotride benchmark robustness --seeds 3
    colotride benchmark evaluation
    colotride benchmark scaling --workers 1 2
    colotride benchmark search --seeds 5
    colotride benchmark index --galleries 1000000
    colotride benchmark fine-tuning --image-sizes 112 --triplets 16
"""

import json
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table

from colotride.cli.options.benchmark import Benchmark
from colotride.devices import device_of
from colotride.disk import check_writable
from colotride.errors import ConfigurationError
from colotride.evaluation.settings import Protocol
from colotride.io import write_atomically
from colotride.models import TWO_CONVOLUTIONS, ModelSettings
from colotride.terminal import Terminal
from scripts.benchmarks.chart import draw_ratios
from scripts.benchmarks.evaluation import measure_galleries, measure_whole
from scripts.benchmarks.fine_tuning import ENCODER, measure_fine_tuning
from scripts.benchmarks.index import measure_indexes
from scripts.benchmarks.profile import ProfileRow, profile_of
from scripts.benchmarks.robustness_work import robustness
from scripts.benchmarks.search_works import engine, replays, search, table
from scripts.benchmarks.step import AS_IT_IS, BenchmarkCase, StepRow, measure_steps, step_benchmark
from scripts.benchmarks.terminal import machine, show

PROTOCOLS: tuple[Protocol, ...] = ("strict", "strong")
"""Whose whole evaluations are measured."""

LOADED_IMAGES = 1500
"""Photographs that are loaded by scaling."""

SCALING_PAIRS = 16
"""Pairs per worker and batch of scaling."""


def main(command: Benchmark) -> int:
    """Measure what the arguments ask for."""
    works = {
        "step": step,
        "profile": profile,
        "robustness": robustness,
        "evaluation": evaluation,
        "scaling": scaling,
        "search": replays if command.replay else search,
        "table": table,
        "engine": engine,
        "index": index,
        "fine-tuning": fine_tuning,
    }
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    device = device_of(command.device)
    check_writable(command.output)
    if command.replay and command.what != "search":
        raise ConfigurationError(f"--replay replays searches, not {command.what}; give `search --replay`")
    shown, rows = works[command.what](command, device)
    result = {"what": command.what, "machine": machine(device), "rows": rows}
    path = command.output / f"{command.what}.json"
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())
    if command.as_json:
        print(json.dumps(result))
    else:
        Terminal().print(shown)
        Terminal(stderr=True).print(f"written to {path}", soft_wrap=True)
    return 0


def cases(command: Benchmark, device: torch.device) -> list[BenchmarkCase]:
    """The networks and batches to measure."""
    found = []
    for size in command.image_sizes:
        small = size >= 128 and device.type == "cpu"
        triplets, steps = (4, 4) if small else (command.triplets, command.steps)
        found.append(BenchmarkCase(TWO_CONVOLUTIONS if size == 28 else "resnet18", size, triplets, steps))
    return found


def network_of(command: Benchmark) -> ModelSettings:
    """How our network computes."""
    chosen = {"precision": command.precision, "compile": command.compile, "cuda_graphs": command.cuda_graphs}
    return AS_IT_IS.model_copy(update=chosen)


def step(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Every kind of training step on every network."""
    rows: list[StepRow] = []
    console = Terminal(stderr=True)
    for case in cases(command, device):
        with console.status(case.name) as status:
            rows += measure_steps(
                case,
                command.rounds,
                device,
                network_of(command),
                on_run=partial(show, status, case.name),
            )
    groups: dict[str, list[tuple[str, float]]] = {}
    tables: dict[str, Table] = {}
    for row in rows:
        groups.setdefault(row.case, []).append((row.step, row.textbook))
        table = tables.setdefault(row.case, _step_table(f"{row.case} ({row.path})"))
        numbers = (
            f"{row.seconds:.3f}",
            f"{row.images_per_second:.1f}",
            f"{row.peak_mib:.0f}",
            f"{row.teraflops:.2f}",
            f"{row.of_peak:.0%}",
        )
        table.add_row(row.step, *numbers, f"{row.textbook:.2f}x", f"{row.limit:.2f}")
    draw_ratios(groups, "times faster than the textbook", command.output / "step.png")
    return Group(*tables.values(), f"Measured on {machine(device)}."), [asdict(row) for row in rows]


def _step_table(case: str) -> Table:
    caption = (
        "peak: share of the speed of one large matrix product; textbook: how many times faster; "
        "limit: seconds of the unavoidable passes over ours"
    )
    table = Table(title=case, caption=caption)
    for heading in ("step", "seconds", "images/s", "MiB", "TFLOP/s", "peak", "textbook", "limit"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    return table


def evaluation(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Galleries of several sizes, and whole evaluations on the smallest."""
    smallest = min(command.galleries)
    with Terminal(stderr=True).status("evaluation") as status:
        wholes = [
            measure_whole(
                smallest,
                min(command.queries, smallest),
                32,
                command.rounds,
                device,
                partial(show, status, f"whole, {protocol}"),
                protocol,
            )
            for protocol in PROTOCOLS
        ]
        rows = measure_galleries(command.galleries, command.rounds, partial(show, status, "galleries"))
    table = Table(
        title="Everything that is not a pass through the network",
        caption="at most 2,000 queries are attacked; above 100,000 images no k-means",
    )
    for heading in ("images", "queries", "seconds", "peak MiB", "x loop over queries"):
        table.add_column(heading, justify="right")
    for row in rows:
        loop = "" if row.loop is None else f"{row.loop:.1f}"
        table.add_row(f"{row.images:,}", f"{row.queries:,}", f"{row.seconds:.1f}", f"{row.peak_mib:.0f}", loop)
    lines = [
        f"{whole.queries} of {whole.images} images attacked by {whole.protocol} with 32 steps: {whole.seconds:.1f} s, "
        f"{whole.over_passes:.2f} times the network passes alone."
        for whole in wholes
    ]
    said = "\n".join([*lines, f"Measured on {machine(device)}."])
    return Group(table, said), [*map(asdict, wholes), *map(asdict, rows)]


def fine_tuning(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """A large encoder, trained whole and in part, at the smallest of the image sizes that its patches fit."""
    size = min((each for each in command.image_sizes if each >= 64), default=112)
    case = BenchmarkCase(ENCODER, size, command.triplets, command.steps)
    with Terminal(stderr=True).status("fine-tuning") as status:
        rows = measure_fine_tuning(case, command.rounds, device, partial(show, status, "fine-tuning"))
    table = Table(title=case.name, caption="a cycle is one step with CAP and one with ANP; random weights")
    for heading in ("trained", "weights", "s a cycle", "x everything", "peak MiB", "Adam, MiB"):
        table.add_column(heading, justify="left" if heading == "trained" else "right")
    for row in rows:
        numbers = (
            f"{row.seconds:.2f}",
            f"{row.seconds / rows[0].seconds:.2f}",
            f"{row.peak_mib:.0f}",
            f"{row.optimizer_mib:.1f}",
        )
        table.add_row(row.trains, f"{row.weights:,}", *numbers)
    return Group(table, f"Measured on {machine(device)}."), [asdict(row) for row in rows]


def index(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Both kinds of index, for collections of several sizes."""
    with Terminal(stderr=True).status("index") as status:
        rows = measure_indexes(command.galleries, partial(show, status, "index"))
    table = Table(title="Indexes of embeddings of 512 dimensions", caption="ten nearest of 200 queries, one at a time")
    for heading in ("images", "kind", "build, s", "peak MiB", "query, ms", "recall@10"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for row in rows:
        numbers = (f"{row.build_seconds:.1f}", f"{row.peak_mib:.0f}", f"{row.query_ms:.2f}", f"{row.recall:.1%}")
        table.add_row(f"{row.images:,}", row.kind, *numbers)
    return Group(table, f"Measured on {machine(device)}."), list(map(asdict, rows))


def scaling(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Throughput with several workers of one thread each, and what Ray costs."""
    # Ray takes seconds to import.
    from scripts.benchmarks.loading import measure_loading
    from scripts.benchmarks.scaling import BATCHES, make_images, measure_scaling, plain_seconds

    with Terminal(stderr=True).status("scaling") as status, tempfile.TemporaryDirectory() as folder:
        on_run = partial(show, status, "scaling")
        loading = measure_loading(Path(folder) / "photographs", LOADED_IMAGES, on_run=on_run)
        root = Path(folder) / "noise"
        make_images(root)
        on_run("without Ray")
        plain = SCALING_PAIRS * BATCHES / plain_seconds(root, SCALING_PAIRS)
        start, rows = measure_scaling(root, command.workers, SCALING_PAIRS, on_run)
    table = Table(
        title="Training on Ray's workers: ResNet-18, 64 px, 8 PGD steps, CPU",
        caption=f"{SCALING_PAIRS} pairs per worker and batch; model: what exchanges leave; start-up: what Ray Train adds",
    )
    for heading in ("workers", "pairs/s", "efficiency", "model", "start-up, s"):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = f"{row.efficiency:.0%}", f"{row.predicted:.0%}"
        table.add_row(str(row.workers), f"{row.pairs_per_second:.0f}", *shares, f"{row.startup:.1f}")
    memory = Table(title="Processes that read one store", caption="pages that are shared count once")
    for heading in ("processes", "store, MiB", "everything, MiB"):
        memory.add_column(heading, justify="right")
    for one in loading.readers:
        memory.add_row(str(one.workers), f"{one.store_mib:.0f}", f"{one.whole_mib:.0f}")
    width, height = loading.image_size
    said = (
        f"Without Ray, one thread: {plain:.0f} pairs/s. Ray starts in {start:.1f} s.\n"
        f"Loading {width} x {height} JPEGs at {loading.stored_size} px: {loading.decoding:.0f} images/s decoded, "
        f"{loading.reading:.0f} from the store ({loading.ratio:.0f}x), which was built in {loading.build_seconds:.1f} s.\n"
        f"Measured on {machine(device)}."
    )
    values = [{"plain_pairs_per_second": plain, "ray_start_seconds": start}, *map(asdict, rows), asdict(loading)]
    return Group(table, memory, said), values


def profile(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """One CAP and one ANP step on the first network that is not the small one."""
    found = cases(command, device)
    case = next((one for one in found if one.architecture != TWO_CONVOLUTIONS), found[0])
    one = step_benchmark(case, device, network_of(command))
    candidates, anchor = one.ours("CAP"), one.ours("ANP")

    def cycle() -> None:
        candidates()
        anchor()

    rows: list[ProfileRow] = profile_of(cycle, device)
    table = Table(title=f"One cycle (CAP + ANP), {case.name}, on {machine(device)}")
    for heading in ("operations", "milliseconds", "share", "calls"):
        table.add_column(heading, justify="left" if heading == "operations" else "right")
    for row in rows:
        table.add_row(row.operations, f"{row.milliseconds:.0f}", f"{row.share:.1%}", str(row.calls))
    return table, [asdict(row) for row in rows]
