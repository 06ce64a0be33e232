"""What a search costs beside its trainings: many trials at once that train nothing, and a study of many trials."""

import dataclasses
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
from optuna.storages import JournalStorage
from ray import tune

from colotride.distributed.ray_cluster import start_ray
from colotride.presets import preset
from colotride.training.records import EpochRecord
from colotride.tune.journal import CheckedJournal
from colotride.tune.parameters import Values
from colotride.tune.plan import SearchPlan, new_plan
from colotride.tune.ray_tune import run_trials
from colotride.tune.records import TrialRecord
from colotride.tune.resources import SearchFolders, TrialResources
from colotride.tune.study import JOURNAL, PLAN, STUDY, SearchStudy
from colotride.tune.trial import RECORD

EPOCH_SECONDS = 1.0
"""That an epoch of a stub seems to train."""

LATEST = 50
"""Newest trials by whose times a study of some size is judged."""


@dataclass(frozen=True)
class EngineRow:
    """One search whose trials train nothing."""

    trials: int
    at_once: int
    seconds: float
    start: float
    """Seconds until the first trial reported: processes come up."""
    busy: float
    """Share of the time that the slots spent in a trial, in [0, 1]."""
    overhead: float
    """Seconds per trial and slot that were no epoch: between one trial and the next, start-up left out."""
    driver_mib: int
    """Peak of the driver."""


@dataclass(frozen=True)
class StudyRow:
    """A study on disk when it holds some number of trials of ten epochs, in seconds."""

    trials: int
    draw: float
    report: float
    """Of one epoch."""
    open: float
    """Of the journal, as a resumed search does."""
    journal_mib: float
    driver_mib: int


def measure_engine(trials: int, at_once: int) -> EngineRow:
    """Drive trials that sleep.

    Args:
        trials: how many.
        at_once: side by side; Ray is told of as many cores.
    """
    # On a machine with fewer cores they are as idle as on one with as many: a stub sleeps.
    ray.shutdown()
    start_ray(at_once)
    plan = _plan(trials)
    reports = _Reports()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        run_trials(
            SearchStudy(folder, plan),
            folder,
            TrialResources(concurrent=at_once),
            at_once,
            SearchFolders(folder),
            [reports],
            _stub,
        )
        seconds = time.monotonic() - began
    ray.shutdown()
    start = reports.first - began
    trained = reports.epochs * EPOCH_SECONDS
    slots = at_once * (seconds - start)
    return EngineRow(
        trials=trials,
        at_once=at_once,
        seconds=seconds,
        start=start,
        busy=min(1.0, trained / slots),
        overhead=max(0.0, slots - trained) / trials,
        driver_mib=_peak_mib(),
    )


def measure_study(sizes: Sequence[int], on_run: Callable[[str], None] = lambda _: None) -> list[StudyRow]:
    """Fill a study on disk, and time it at some sizes.

    Args:
        sizes: numbers of trials.
        on_run: called with a line about how far it is.
    """
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder, plan = Path(name), _plan(max(sizes))
        # What a draw costs depends on how many trials there are, not on how they were drawn, and TPE draws ten thousand
        # of them in hours.
        random = new_plan(plan.base, trials=plan.trials, sampler="random")
        for size in sorted(set(sizes)):
            _under(folder, random)
            study = SearchStudy(folder, random)
            for number in range(len(study.records()) + 1, size - LATEST + 1):
                _drive(study)
                if number % 500 == 0:
                    on_run(f"a study of {number} trials")
            _under(folder, plan)
            study = SearchStudy(folder, plan)
            timed = [_drive(study) for _ in range(len(study.records()), size)]
            del study
            began = time.perf_counter()
            study = SearchStudy(folder, plan)
            opened = time.perf_counter() - began
            rows.append(
                StudyRow(
                    trials=len(study.records()),
                    draw=float(np.mean([draw for draw, _ in timed])),
                    report=float(np.mean([report for _, reports in timed for report in reports])),
                    open=opened,
                    journal_mib=(folder / JOURNAL).stat().st_size / 2**20,
                    driver_mib=_peak_mib(),
                )
            )
    return rows


def _under(folder: Path, plan: SearchPlan) -> None:
    """Let a study that another plan began be opened with this one, which it would refuse."""
    if (folder / JOURNAL).exists():
        journal = JournalStorage(CheckedJournal(folder / JOURNAL))
        optuna.load_study(study_name=STUDY, storage=journal).set_user_attr(PLAN, plan.fingerprints())


def _drive(study: SearchStudy) -> tuple[float, list[float]]:
    """Let a study draw a trial and hear of its epochs; returns the seconds of the draw and of each report."""
    began, reports = time.perf_counter(), []
    record = study.draw()
    draw = time.perf_counter() - began
    assert record is not None
    for epoch in range(1, study.plan.epochs + 1):
        began = time.perf_counter()
        stop = study.report(_trained(study.record(record.number), epoch, study.plan.epochs))
        reports.append(time.perf_counter() - began)
        if stop:
            break
    study.settle(record.number)
    return draw, reports


class _Reports:
    """Sees when the first trial reported, and how many epochs there were; a `TrialCallback`."""

    def __init__(self) -> None:
        self.first, self.epochs = 0.0, 0

    def started(self, record: TrialRecord) -> None:
        pass

    def reported(self, record: TrialRecord) -> None:
        self.first = self.first or time.monotonic()
        self.epochs += 1

    def ended(self, record: TrialRecord) -> None:
        pass


def _plan(trials: int) -> SearchPlan:
    return new_plan(preset("digits"), trials=trials)


def _stub(given: Mapping[str, Any], plan: SearchPlan, resources: TrialResources, folders: SearchFolders) -> None:
    """A trainable that sleeps for as long as its epochs seem to take."""
    record: TrialRecord = given[RECORD]
    for epoch in range(1, plan.epochs + 1):
        time.sleep(EPOCH_SECONDS)
        record = _trained(record, epoch, plan.epochs)
        tune.report({RECORD: record})


def _trained(record: TrialRecord, epoch: int, epochs: int) -> TrialRecord:
    score = _score(record.values) * (0.5 + 0.5 * epoch / epochs)
    scores = {"R@1": 50.0, "mAP": 20.0, "ERS": score, "ARS": score}
    one = EpochRecord(epoch, 8 * epoch, EPOCH_SECONDS, {"loss": 0.1}, scores, 5000)
    record = dataclasses.replace(record, history=(*record.history, one))
    return record.with_end("finished") if epoch == epochs else record


def _score(values: Values) -> float:
    return 50.0 - 5 * abs(float(np.log(values["attention_factor"] / 8))) + float(np.log2(values["pgd_steps"]))


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
