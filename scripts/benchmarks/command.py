"""Measure speed as ratios, side by side in one process.

Examples:
    colotride benchmark step
    colotride benchmark step --device cuda --image-sizes 224 --triplets 37 --precision bfloat16 --compile
    colotride benchmark profile
    colotride benchmark evaluation
    colotride benchmark scaling --workers 1 2
    colotride benchmark search --seeds 5
    colotride benchmark index --galleries 1000000
    colotride benchmark fine-tuning --image-sizes 112 --triplets 16
"""

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Group, RenderableType
from rich.status import Status
from rich.table import Table

from colotride.cli.options.benchmark import Benchmark
from colotride.devices import device_of
from colotride.disk import check_writable
from colotride.errors import ConfigurationError
from colotride.evaluation.settings import Protocol
from colotride.io import write_atomically
from colotride.models import TWO_CONVOLUTIONS
from colotride.terminal import Terminal
from scripts.benchmarks.chart import draw_ratios
from scripts.benchmarks.evaluation import measure_galleries, measure_whole
from scripts.benchmarks.fine_tuning import ENCODER, measure_fine_tuning
from scripts.benchmarks.index import measure_indexes
from scripts.benchmarks.profile import ProfileRow, profile_of
from scripts.benchmarks.step import BenchmarkCase, StepRow, measure_steps, step_benchmark

PROTOCOLS: tuple[Protocol, ...] = ("strict", "strong")
"""Whose whole evaluations are measured."""

SEARCH_EPOCHS = 6
"""Of each trial of a search."""

LOADED_IMAGES = 1500
"""Photographs that are loaded by scaling."""

SCALING_PAIRS = 16
"""Pairs per worker and batch of scaling."""


def main(command: Benchmark) -> int:
    """Measure what the arguments ask for."""
    works = {
        "step": step,
        "profile": profile,
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


def machine(device: torch.device) -> str:
    """What a figure was measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def cases(command: Benchmark, device: torch.device) -> list[BenchmarkCase]:
    """The networks and batches to measure."""
    found = []
    for size in command.image_sizes:
        small = size >= 128 and device.type == "cpu"
        triplets, steps = (4, 4) if small else (command.triplets, command.steps)
        found.append(BenchmarkCase(TWO_CONVOLUTIONS if size == 28 else "resnet18", size, triplets, steps))
    return found


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
                precision=command.precision,
                compile=command.compile,
                on_run=partial(_show, status, case.name),
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
                partial(_show, status, f"whole, {protocol}"),
                protocol,
            )
            for protocol in PROTOCOLS
        ]
        rows = measure_galleries(command.galleries, command.rounds, partial(_show, status, "galleries"))
    table = Table(
        title="Everything that is not a pass through the network",
        caption="every image is a query; at most 2,000 are attacked",
    )
    for heading in ("images", "seconds", "peak MiB", "x loop over queries"):
        table.add_column(heading, justify="right")
    for row in rows:
        loop = "" if row.loop is None else f"{row.loop:.1f}"
        table.add_row(str(row.images), f"{row.seconds:.1f}", f"{row.peak_mib:.0f}", loop)
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
        rows = measure_fine_tuning(case, command.rounds, device, partial(_show, status, "fine-tuning"))
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
        rows = measure_indexes(command.galleries, partial(_show, status, "index"))
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
        on_run = partial(_show, status, "scaling")
        loading = measure_loading(Path(folder) / "photographs", LOADED_IMAGES, on_run=on_run)
        root = Path(folder) / "noise"
        make_images(root)
        on_run("without Ray")
        plain = SCALING_PAIRS * BATCHES / plain_seconds(root, SCALING_PAIRS)
        start, rows = measure_scaling(root, command.workers, SCALING_PAIRS, on_run)
    table = Table(
        title="Training on Ray's workers: ResNet-18, 64 px, 8 PGD steps, CPU",
        caption=f"{SCALING_PAIRS} pairs per worker and batch; start-up: what Ray Train adds to a run",
    )
    for heading in ("workers", "pairs/s", "efficiency", "start-up, s"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(str(row.workers), f"{row.pairs_per_second:.0f}", f"{row.efficiency:.0%}", f"{row.startup:.1f}")
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


def search(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Random search, TPE, and TPE with ASHA on digits, at one budget of epochs."""
    # Ray, Optuna and the search take seconds to import.
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
            on_search=partial(_show, status, "search"),
        )
        _show(status, "search", "recording")
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
    # Optuna and the search take seconds to import.
    from scripts.benchmarks.table import TABLES, describe, load_table, measure_table, save_table

    shipped = TABLES / f"{command.dataset}.parquet"
    target = command.output / "table" / f"{command.dataset}.parquet"
    start = next((path for path in (command.table, target, shipped) if path is not None and path.is_file()), None)
    with Terminal(stderr=True).status("table") as status:
        measured = measure_table(
            command.dataset,
            command.configurations,
            command.seeds,
            command.output / "table" / command.dataset,
            data_root=command.data_root,
            known=None if start is None else load_table(start),
            processes=max(command.workers),
            on_run=partial(_show, status, "table"),
        )
    typed = f"colotride benchmark table --dataset {command.dataset} --configurations {command.configurations}"
    save_table(measured, command.dataset, f"{typed} --seeds {command.seeds}", target)
    rows = describe(measured)
    shown = Table(title=f"Configurations on {command.dataset}", caption="ARS: means over the seeds, in %")
    for heading in rows[0]:
        shown.add_column(heading, justify="left" if heading == "space" else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    return Group(shown, f"The table is in {target}."), rows


def replays(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Hundreds of searches per method, replayed on a measured table."""
    from scripts.benchmarks.replay import METHODS, PICTURED, draw_replays, replay_all, share_of_budget
    from scripts.benchmarks.table import TABLES, load_table

    for name in command.methods:
        if name not in METHODS:
            raise ConfigurationError(f"no way to search is called {name!r}; there are: {'; '.join(METHODS)}")
    measured = load_table(command.table or TABLES / f"{command.dataset}.parquet")
    with Terminal(stderr=True).status("replay") as status:
        rows, courses = replay_all(
            measured,
            command.dataset,
            (command.trials, 3 * command.trials),
            command.repetitions,
            methods=command.methods or tuple(METHODS),
            surrogate=command.surrogate,
            processes=os.cpu_count() or 1,
            on_run=partial(_show, status, "replay"),
        )
    draw_replays(courses, PICTURED, command.output / "replay.png")
    tables = []
    for space in dict.fromkeys(row.space for row in rows):
        shown = Table(
            title=f"Searches replayed on {command.dataset}, {space} space",
            caption="gain: test ARS over the default's; better: % of winners above it; 95 % intervals",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for heading in ("method", "budget", "regret", "gain", "better"):
            shown.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
        for row in (one for one in rows if one.space == space):
            low, high = row.gain_interval
            least, most = row.better_interval
            shown.add_row(
                row.method,
                str(row.budget),
                f"{row.regret:.2f}",
                f"{row.gain:+.1f} [{low:+.1f}, {high:+.1f}]",
                f"{100 * row.better:.0f} [{100 * least:.0f}, {100 * most:.0f}]",
            )
        tables.append(shown)
    shares = {
        (one.space, one.method): share_of_budget(courses, "random", one.method, one.space)
        for one in courses
        if "random" in {other.method for other in courses}
    }
    spent = Table(title="Share of the larger budget after which what random search finds with the whole was found")
    for heading in ("space", "method", "share"):
        spent.add_column(heading, justify="right" if heading == "share" else "left")
    for (space, method), one in shares.items():
        spent.add_row(space, method, f"{one.share:.0%} [{one.low:.0%}, {one.high:.0%}]".replace("inf%", "never"))
    values = [asdict(row) | {"share_of_random": _share(shares, row)} for row in rows]
    return Group(*tables, spent), values


def _share(shares: Mapping[tuple[str, str], Any], row: Any) -> dict[str, float | None] | None:
    found = shares.get((row.space, row.method))
    # JSON knows no infinity.
    return found and {name: value if math.isfinite(value) else None for name, value in asdict(found).items()}


def engine(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """Trials that train nothing, many at once, and a study of many trials."""
    from scripts.benchmarks.engine import measure_engine, measure_study

    with Terminal(stderr=True).status("engine") as status:
        on_run = partial(_show, status, "engine")
        on_run(f"{command.trials} trials, {command.concurrent} at once")
        driven = measure_engine(command.trials, command.concurrent)
        studies = measure_study(command.galleries, on_run)
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
    held = Table(title="A study on disk (TPE, ASHA)", caption="means over the newest 50 trials, in milliseconds")
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


def _show(status: Status, case: str, name: str) -> None:
    status.update(f"{case}: {name}")


def profile(command: Benchmark, device: torch.device) -> tuple[RenderableType, list[dict[str, Any]]]:
    """One CAP and one ANP step on the first network that is not the small one."""
    found = cases(command, device)
    case = next((one for one in found if one.architecture != TWO_CONVOLUTIONS), found[0])
    one = step_benchmark(case, device, precision=command.precision, compile=command.compile)
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
