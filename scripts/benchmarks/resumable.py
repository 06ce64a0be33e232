"""Measurements of many runs: each result is a file of its own, so that an interrupted measurement goes on where it was."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from colotride.disk import one_line
from colotride.io import write_atomically


def measure_missing(
    tasks: Mapping[Path, tuple[Any, ...]],
    measure: Callable[..., Any],
    processes: int,
    on_run: Callable[[str], None] = lambda _: None,
) -> list[Any]:
    """Make the results that are missing, and return all, in the order of the tasks.

    Args:
        tasks: by the file of its result, the arguments of a run.
        measure: makes a run's result, of plain values; a function of a module, because other processes call it.
        processes: runs side by side.
        on_run: called with a line about how far it is.
    """
    for folder in {path.parent for path in tasks}:
        with one_line(folder):
            folder.mkdir(parents=True, exist_ok=True)
    missing = {path: task for path, task in tasks.items() if not path.exists()}
    there = len(tasks) - len(missing)
    on_run(f"{there} of {len(tasks)} runs")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(_measured, path, measure, task) for path, task in missing.items()]
        try:
            for done, future in enumerate(as_completed(running), there + 1):
                future.result()
                on_run(f"{done} of {len(tasks)} runs")
        except BaseException:
            # What has not begun is not begun any more.
            pool.shutdown(cancel_futures=True)
            raise
    return [json.loads(path.read_text()) for path in tasks]


def _measured(path: Path, measure: Callable[..., Any], task: tuple[Any, ...]) -> None:
    write_atomically(path, json.dumps(measure(*task)).encode())
