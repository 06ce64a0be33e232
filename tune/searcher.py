"""Ray Tune's side of a search: it asks the memory what to run, tells it what happened, and stops what it says."""

from typing import Any

from ray.tune import Callback
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from colotride.tune.callbacks import TrialCallback
from colotride.tune.memory import Memory

OUT_OF_MEMORY = "out-of-memory"


class MemorySearcher(Searcher):
    """Hands out trials: those that a former driver left running, those to be tried again alone, then new ones."""

    def __init__(self, memory: Memory, *, can_be_alone: bool) -> None:
        """Serve one session of a search.

        Args:
            memory: of the search.
            can_be_alone: whether trials share GPUs, so that one that ran out of memory may succeed without company.
        """
        super().__init__(metric=memory.plan.objectives[0], mode="max")
        self._memory, self._can_be_alone = memory, can_be_alone
        self._waiting: list[tuple[int, bool]] = [(number, False) for number in memory.unfinished()]
        self._running: dict[str, tuple[int, bool]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What the next trial of Ray runs; nothing yet, while one that runs may have to be tried again."""
        if not self._waiting:
            row = self._memory.draw()
            if row is None:
                return None if self._running else Searcher.FINISHED
            self._waiting.append((row.number, False))
        number, alone = self._waiting.pop(0)
        self._running[trial_id] = (number, alone)
        return {"number": number, "values": self._memory.row(number).values, "alone": alone}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: `MemoryScheduler` has told the memory already."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial, or put it back into the queue to be tried alone."""
        number, alone = self._running.pop(trial_id, (0, False))
        if number == 0:
            return
        if self._memory.row(number).status == OUT_OF_MEMORY and self._can_be_alone and not alone:
            self._memory.again(number)
            self._waiting.append((number, True))
        elif not error:
            self._memory.settle(number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the memory is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the memory is on disk."""


class MemoryScheduler(FIFOScheduler):
    """Stops a trial where the memory, which knows all of them, says so; also those of before an interruption."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Take note of an epoch."""
        stop = self._memory.report(trial.config["number"], result)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


class Observer(Callback):
    """Tells the callbacks of every trial, in the driver's process."""

    def __init__(self, memory: Memory, callbacks: list[TrialCallback]) -> None:
        self._memory, self._listeners = memory, callbacks
        self._started: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps its callbacks with the experiment; terminals and database connections do not survive that.
        return {**self.__dict__, "_listeners": [], "_memory": None}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        number = trial.config["number"]
        if number not in self._started:
            self._started.add(number)
            for listener in self._listeners:
                listener.started(self._memory.row(number))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """See `ray.tune.Callback`."""
        for listener in self._listeners:
            listener.reported(self._memory.row(trial.config["number"]), result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`; a trial that will be tried again has not ended."""
        number = trial.config["number"]
        if self._memory.row(number).status == OUT_OF_MEMORY and not trial.config["alone"]:
            return
        self._memory.settle(number)
        self._end(number)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        trace = str(trial.get_error() or "").strip().splitlines()
        number = trial.config["number"]
        self._memory.settle(number, error=trace[-1] if trace else "see error.txt in the trial's folder")
        self._end(number)

    def _end(self, number: int) -> None:
        row = self._memory.row(number)
        if row.status != "running":
            for listener in self._listeners:
                listener.ended(row)
