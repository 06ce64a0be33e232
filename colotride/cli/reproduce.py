"""Reproduce a table or a figure of the paper: train the rows it needs, evaluate them, put the paper's numbers beside.

Examples:
    colotride reproduce table1 --dataset cub --data-root ~/data --gpus-per-run 1
    colotride reproduce table4 --dataset digits --seeds 3
    colotride reproduce figure3 --dataset fashion-mnist --data-root ~/data --epochs 8 --pairs-per-epoch 768
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from colotride.cli.options.reproduce import Reproduce
from colotride.config import RunConfig, config_text
from colotride.data.settings import absolute_root
from colotride.data.splits import load_splits
from colotride.disk import check_writable
from colotride.distributed.ray_cluster import machines, start_ray
from colotride.errors import ConfigurationError
from colotride.io import write_atomically
from colotride.locking import owned
from colotride.presets import preset, with_data_root
from colotride.registry import load_plugin
from colotride.reproduction.appendix_a import draw_ratios, shifts_at
from colotride.reproduction.experiments import Row, rows_of
from colotride.reproduction.figures import PANELS, draw_curves
from colotride.reproduction.results import LAST_EPOCH, SeedResult, comma_separated, markdown, short_table, summarise
from colotride.terminal import Terminal
from colotride.tracking.addresses import check_tracking_uri
from colotride.tracking.export import Tracker, default_uri
from colotride.tracking.names import CONFIG_FILE, dataset_of, epoch_metrics, run_parameters, run_tags, test_metrics
from colotride.training.records import EpochRecord
from colotride.training.run_directory import config_digest
from colotride.tune.final_runs import FinalRun, train_and_evaluate_each
from colotride.tune.resources import TrialResources, capacity


@dataclass(frozen=True)
class Job:
    """One row with one seed."""

    row: Row
    config: RunConfig
    folder: Path


def main(command: Reproduce) -> int:
    """Reproduce what the arguments ask for."""
    if command.what == "appendix-a":
        return appendix_a(command)
    for module in command.plugin:
        load_plugin(module)
    rows = rows_of(command.what)
    check_tracking_uri(command.tracking_uri or default_uri())
    jobs = plan_jobs(command, rows)
    load_splits(jobs[0].config.data)
    resources = _resources(command)
    capacity(resources, machines(), "run")
    start_ray()
    console = Terminal(stderr=True)
    folder = command.results / command.dataset
    with owned(folder, "reproduction"):
        check_writable(folder)
        return _reproduced(command, jobs, folder, console)


def _reproduced(command: Reproduce, jobs: Sequence[Job], folder: Path, console: Console) -> int:
    tracker = Tracker(command.tracking_uri or default_uri(), folder)
    tracker.start(
        command.what,
        f"{command.what} {command.dataset}",
        parameters={"seeds": str(command.seeds), "runs": str(len(jobs))},
        tags={"dataset": command.dataset, "reproduces": command.what, "kind": "reproduce"},
    )
    results, histories = run_jobs(command, jobs, tracker, console)
    files = write_results(command, results, folder)
    if command.what in PANELS:
        files += draw_curves(histories, command.what, folder / command.what, f"{command.what} on {command.dataset}")
    for file in files:
        tracker.artifact(command.what, file)
    tracker.end(command.what)
    tracker.close()
    Terminal().print(short_table(summarise(results, command.what, command.dataset)))
    console.print(f"written: {', '.join(str(file) for file in files)}", soft_wrap=True)
    return 0


def appendix_a(command: Reproduce) -> int:
    """Compute Appendix A's ratio over the angle; needs no data and no training."""
    shifts = [shifts_at(float(angle)) for angle in range(10, 181, 10)]
    lines = ["| angle | ANP | CAP | SIP | (ANP + CAP) / SIP |", "|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {one.angle:.0f} | {one.anchor:.2e} | {one.candidates:.2e} | {one.simultaneous:.2e} | {one.ratio:.3f} |"
        for one in shifts
    ]
    plain = [dataclasses.asdict(one) | {"ratio": one.ratio} for one in shifts]
    path = command.results / "appendix-a"
    write_atomically(path.with_suffix(".md"), ("\n".join(lines) + "\n").encode())
    write_atomically(path.with_suffix(".csv"), comma_separated(plain).encode())
    write_atomically(path.with_suffix(".json"), (json.dumps(plain, indent=2) + "\n").encode())
    draw_ratios(shifts, path)
    print("\n".join(lines))
    print(f"written: {path}.md, .csv, .json, .png, .svg")
    return 0


def plan_jobs(command: Reproduce, rows: Sequence[Row]) -> list[Job]:
    """Every row with every seed, each in a folder that belongs to its exact configuration.

    Raises:
        ConfigurationError: no seeds, or a budget out of range.
    """
    if command.seeds < 1:
        raise ConfigurationError(f"--seeds {command.seeds} trains nothing; give 1 or more")
    budget: dict[str, Any] = {
        "training.epochs": command.epochs,
        "data.pairs_per_epoch": command.pairs_per_epoch,
        "data.pairs_per_batch": command.pairs_per_batch,
        "evaluation.queries": command.queries,
        "evaluation.steps": command.attack_steps,
    }
    base = with_data_root(preset(command.dataset), command.data_root)
    base = base.with_values({"data.root": absolute_root(base.data.root)})
    jobs = []
    for seed in range(command.seeds):
        for row in rows:
            config = row.configure(base, seed).with_values({k: v for k, v in budget.items() if v is not None})
            name = f"{row.slug}-seed{seed}-{config_digest(config)[:8]}"
            jobs.append(Job(row, config, command.results / command.dataset / "runs" / name))
    return jobs


def run_jobs(
    command: Reproduce, jobs: Sequence[Job], tracker: Tracker, console: Console
) -> tuple[list[SeedResult], dict[str, list[list[EpochRecord]]]]:
    """Train and evaluate all jobs side by side; each becomes a child of the MLflow run as it ends.

    Returns:
        One result per job in the order of the jobs, and the histories by label.
    """
    by_folder = {job.folder.absolute(): job for job in jobs}
    configs = {folder: job.config for folder, job in by_folder.items()}
    ended: dict[Path, FinalRun] = {}
    for folder, one in train_and_evaluate_each(configs, _resources(command), command.concurrent):
        ended[folder] = one
        console.print(_line(len(ended), len(jobs), _result(by_folder[folder], one)), soft_wrap=True)
        _record(by_folder[folder], one, command, tracker)
    histories = {job.row.label: list[list[EpochRecord]]() for job in jobs}
    for folder, job in by_folder.items():
        histories[job.row.label].append(ended[folder].history)
    order = list(histories)
    results = [_result(job, ended[folder]) for folder, job in by_folder.items()]
    return sorted(results, key=lambda result: (order.index(result.label), result.seed)), histories


def _resources(command: Reproduce) -> TrialResources:
    device = command.device if command.gpus_per_run or command.device != "auto" else "cpu"
    return TrialResources(command.cpus_per_run, command.gpus_per_run, command.concurrent, device=device)


def write_results(command: Reproduce, results: Sequence[SeedResult], folder: Path) -> list[Path]:
    """Write the table as Markdown, CSV and JSON, atomically."""
    summary = summarise(results, command.what, command.dataset)
    everything = {
        "command": command.model_dump(mode="json"),
        "rows": summary,
        "runs": list(map(dataclasses.asdict, results)),
    }
    contents = {
        ".md": markdown(summary, command.what),
        ".csv": comma_separated(summary),
        ".json": json.dumps(everything, indent=2, default=str) + "\n",
    }
    for suffix, content in contents.items():
        write_atomically(folder / f"{command.what}{suffix}", content.encode())
    return [folder / f"{command.what}{suffix}" for suffix in contents]


def _record(job: Job, one: FinalRun, command: Reproduce, tracker: Tracker) -> None:
    tags = run_tags(job.config, "reproduce") | {"reproduces": command.what, "status": one.status}
    name = f"{job.row.label} seed {job.config.seed}"
    key = f"{command.what}/{name}"
    parameters, dataset = run_parameters(job.config), dataset_of(job.config)
    if tracker.start(key, name, parameters=parameters, tags=tags, parent=command.what, dataset=dataset):
        tracker.text(key, CONFIG_FILE, config_text(job.config))
    for epoch in one.history:
        tracker.metrics(key, epoch_metrics(epoch), epoch.epoch)
    if one.evaluation:
        tracker.metrics(key, test_metrics(one.evaluation.scores()))
    tracker.end(key)


def _result(job: Job, one: FinalRun) -> SeedResult:
    seen = one.history[-1].diagnostics if one.history else {}
    last = {name: seen[name] for name in LAST_EPOCH if name in seen}
    return SeedResult(
        label=job.row.label,
        seed=job.config.seed,
        status=one.status,
        epochs=len(one.history),
        seconds=sum(epoch.seconds for epoch in one.history),
        scores={**(one.evaluation.scores() if one.evaluation else {}), **last},
    )


def _line(number: int, total: int, result: SeedResult) -> str:
    scores = "  ".join(f"{name} {result.scores[name]:.1f}" for name in ("R@1", "ERS", "ARS") if name in result.scores)
    return (
        f"[{number}/{total}] {result.label} seed {result.seed}: {result.status} after {result.epochs} epochs  {scores}"
    )
