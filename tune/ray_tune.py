"""Ray Tune, which runs the trials: it asks the study what to run, reports to it, and stops the trials that it names."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from colotride.disk import check_writable
from colotride.errors import StorageError
from colotride.tune.callbacks import TrialCallback
from colotride.tune.records import OUT_OF_MEMORY
from colotride.tune.resources import SearchFolders, TrialResources
from colotride.tune.study import SearchStudy
from colotride.tune.trial import RECORD, run_trial

RETRIES = 2
"""How often a trial is started again from its checkpoint after its process or machine was lost."""


def run_trials(
    study: SearchStudy,
    folder: Path,
    resources: TrialResources,
    at_once: int,
    folders: SearchFolders,
    callbacks: Sequence[TrialCallback],
    trial: Callable[..., None] = run_trial,
) -> None:
    """Run the trials of a search that have not ended; Ctrl-C ends it early, and nothing is lost.

    Args:
        study: of the search.
        folder: of the search.
        resources: of one trial.
        at_once: how many trials; see `capacity`.
        folders: where the trials keep their checkpoints.
        callbacks: called about every trial.
        trial: what each does, in its own process; see `run_trial`.

    Raises:
        StorageError: a disk is full or not writable; the trials that it stopped continue when the search is resumed.
    """
    trainable = tune.with_parameters(trial, plan=study.plan, resources=resources, folders=folders)
    tuner = tune.Tuner(
        tune.with_resources(
            trainable,
            lambda given: tune.PlacementGroupFactory([resources.request(exclusive=given["exclusive"])]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(study, shares_gpus=0 < resources.gpus < 1),
            scheduler=StudyScheduler(study),
            num_samples=-1,
            max_concurrent_trials=at_once,
            # A process that has imported torch trains the next trial too.
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str((folder / "ray").absolute()),
            callbacks=[CallbackRelay(study, list(callbacks), folder, shares_gpus=0 < resources.gpus < 1)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )
    ctrl_c = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    except Exception as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, StorageError):
            found = found.__cause__ or found.__context__
        if found is None:
            raise
        # Ray puts an exception of its own around what a callback or the study raises.
        raise StorageError(str(found)) from error
    finally:
        # Tune's own handler would swallow the first Ctrl-C of what follows.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, ctrl_c)


class StudySearcher(Searcher):
    """Hands out trials: those that a former driver left running, those to be tried again alone, then new ones."""

    def __init__(self, study: SearchStudy, *, shares_gpus: bool) -> None:
        """Serve one session of a search.

        Args:
            study: of the search.
            shares_gpus: whether trials share GPUs, so that one that ran out of memory may succeed on its own.
        """
        super().__init__()
        self._study, self._shares_gpus = study, shares_gpus
        self._waiting: list[tuple[int, bool]] = [(number, False) for number in study.unfinished()]
        self._running: dict[str, tuple[int, bool]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of Ray's next trial; None while a running one may have to be tried again."""
        if not self._waiting:
            record = self._study.draw()
            if record is None:
                return None if self._running else Searcher.FINISHED
            self._waiting.append((record.number, False))
        number, exclusive = self._waiting.pop(0)
        self._running[trial_id] = (number, exclusive)
        return {"number": number, "exclusive": exclusive, RECORD: self._study.record(number)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: `StudyScheduler` has reported to the study already."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial, or put it back into the queue to be tried alone."""
        number, exclusive = self._running.pop(trial_id, (0, False))
        if number == 0:
            return
        if self._study.record(number).status == OUT_OF_MEMORY and self._shares_gpus and not exclusive:
            self._study.reopen(number)
            self._waiting.append((number, True))
        elif not error:
            self._study.settle(number)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk."""


class StudyScheduler(FIFOScheduler):
    """Stops a trial where the study, which also knows the trials from before an interruption, says so."""

    def __init__(self, study: SearchStudy) -> None:
        super().__init__()
        self._study = study

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Report an epoch to the study."""
        return TrialScheduler.STOP if self._study.report(result[RECORD]) else TrialScheduler.CONTINUE


class CallbackRelay(tune.Callback):
    """Passes every trial on to the callbacks, in the driver's process."""

    def __init__(self, study: SearchStudy, callbacks: list[TrialCallback], folder: Path, *, shares_gpus: bool) -> None:
        """Serve one session of a search.

        Args:
            study: of the search.
            callbacks: called about every trial.
            folder: of the search, on whose disk Ray keeps what trials raise.
            shares_gpus: see `StudySearcher`.
        """
        self._study, self._callbacks, self._folder, self._shares_gpus = study, callbacks, folder, shares_gpus
        self._started: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps its callbacks with the experiment; terminals and database connections do not survive that.
        return {**self.__dict__, "_callbacks": [], "_study": None}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        number = trial.config["number"]
        if number not in self._started:
            self._started.add(number)
            for callback in self._callbacks:
                callback.started(self._study.record(number))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """See `ray.tune.Callback`."""
        for callback in self._callbacks:
            callback.reported(self._study.record(trial.config["number"]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`; a trial that will be tried again has not ended."""
        number = trial.config["number"]
        again = self._shares_gpus and not trial.config["exclusive"]
        if self._study.record(number).status == OUT_OF_MEMORY and again:
            return
        self._study.settle(number)
        self._end(number)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`; a trial that the disk has stopped has not ended, and the search stops with it."""
        error = trial.get_error()
        self._stop_for_the_disk(error)
        trace = str(error or "").strip().splitlines()
        number = trial.config["number"]
        self._study.settle(number, error=trace[-1] if trace else "see error.txt in the trial's folder")
        self._end(number)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`; another try would meet the same disk."""
        self._stop_for_the_disk(trial.get_error())

    def _stop_for_the_disk(self, error: BaseException | None) -> None:
        # Ray keeps the text of what a trial raised, in a file for which a full disk has no room either.
        found = storage_error(error)
        if error is None and found is None:
            try:
                check_writable(self._folder)
            except StorageError as full:
                found = str(full)
        if found is not None:
            raise StorageError(f"{found}; the search goes on with --resume")

    def _end(self, number: int) -> None:
        record = self._study.record(number)
        if record.status != "running":
            for callback in self._callbacks:
                callback.ended(record)


def storage_error(error: BaseException | None) -> str | None:
    """What a trial said of a disk that stopped it; None where it raised something else."""
    for line in str(error or "").splitlines():
        kind, _, message = line.partition(": ")
        if kind.endswith(f"errors.{StorageError.__name__}") and message:
            return message
    return None
