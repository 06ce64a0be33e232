"""What a search knows, on disk at every moment: an Optuna study with the course of every trial.

Ray runs the trials, but nothing that matters is kept by it: a driver that is killed at any moment and started again
finds every trial here, goes on with those that were running and draws the next ones as if nothing had happened. The
study opens in optuna-dashboard.

Ray's own OptunaSearch would tell Optuna that a stopped trial is COMPLETE with its last value, as if it had been
trained to the end. Here a trial is COMPLETE only when it is; a stopped one is PRUNED at its epoch, a lost model is
PRUNED and infeasible, one that raised is FAIL.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from colotride.errors import SearchError
from colotride.randomness import derive_seed
from colotride.tune.plan import SHOWN_SCORES, Plan
from colotride.tune.sampling import build_pruner, build_sampler
from colotride.tune.trials import TrialRow

JOURNAL = "optuna.journal"
STUDY = "colotride"
LOCK_SECONDS = 5
"""After which a lock is taken over that a killed driver left behind."""

HEALTH = "health"
"""Constraint of a trial: 0 where it is feasible, above 1 for a lost model, the more the earlier it was lost."""

LATE = 2 / 3
"""Share of its epochs after which a trial is not stopped any more: little would be saved, and its end is worth knowing."""

LOST = ("collapsed", "nan", "diverged")
STOP = "stop"
"""Attribute of a trial that was told to stop."""

ROW = "trial"
"""Attribute of a trial: its `TrialRow`, without number and values."""


class Memory:
    """The trials of one search, told what happens to them.

    Attributes:
        plan: of the search.
        study: Optuna's view of it.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Open the memory of a search, or begin it.

        Args:
            folder: of the search; made when missing.
            plan: of the search; its number of trials may have grown since it was begun.

        Raises:
            SearchError: the study is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        _drop_half_a_line(path)
        self.plan = plan
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._storage = JournalStorage(
            JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path), grace_period=LOCK_SECONDS))
        )
        try:
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY,
                directions=["maximize"] * len(plan.objectives),
                pruner=build_pruner(plan),
                load_if_exists=True,
            )
        except (ValueError, KeyError, optuna.exceptions.OptunaError) as error:
            raise SearchError(f"the study in {path} cannot be read ({error}); start a new search") from None
        for values in plan.first:
            self.study.enqueue_trial(dict(values), skip_if_exists=True)
        self._stopped: set[int] = set()
        self._rows: dict[int, TrialRow] = {}
        for trial in self.study.trials:
            if trial.state != TrialState.WAITING:
                self._rows[trial.number + 1] = self._row_of(trial)
                if trial.user_attrs.get(STOP):
                    self._stopped.add(trial.number + 1)

    def rows(self) -> list[TrialRow]:
        """All trials that were drawn, by number."""
        return [self._rows[number] for number in sorted(self._rows)]

    def row(self, number: int) -> TrialRow:
        """One trial."""
        return self._rows[number]

    def unfinished(self) -> list[int]:
        """Numbers of the trials that run, or ran when a former driver ended."""
        return [row.number for row in self.rows() if row.status == "running"]

    @property
    def complete(self) -> bool:
        """Whether every trial of the plan has come to its end."""
        return self._drawn_all and not self.unfinished()

    @property
    def _drawn_all(self) -> bool:
        spent = sum(row.epoch for row in self._rows.values())
        return len(self._rows) >= self.plan.trials or (
            self.plan.max_epochs is not None and spent >= self.plan.max_epochs
        )

    def draw(self) -> TrialRow | None:
        """Draw the next trial; None where the plan has no more.

        The sampler's randomness follows from the search's seed and the number of the trial alone.
        """
        if self._drawn_all:
            return None
        self._seed_sampler(len(self._rows) + 1)
        return self._filled(self.study.ask())

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take note of an epoch of a trial; True where the trial should be stopped.

        What is known already, because a trial that goes on after an interruption tells of its epochs again, changes
        nothing.

        Args:
            number: of the trial.
            result: see `objective.reported`.
        """
        row = self._rows[number]
        known = result["epoch"] <= row.epoch
        if known and result["status"] == "running":
            return number in self._stopped and result["epoch"] == row.epoch
        row.status, row.reason = result["status"], result["reason"]
        if not known:
            row.epoch, row.seconds = result["epoch"], row.seconds + result["seconds"]
            row.scores = {name: result[name] for name in SHOWN_SCORES}
            row.curve.append(result[self.plan.objectives[0]])
            row.costs.append(result["cost"])
            if len(self.plan.objectives) == 1 and row.status not in LOST:
                self._storage.set_trial_intermediate_value(self._id(number), row.epoch, row.curve[-1])
        self._write(row)
        if row.status != "running" or len(self.plan.objectives) > 1 or row.epoch > LATE * self.plan.epochs:
            return False
        if self.study.pruner.prune(self.study, self._frozen(number)):
            # A pruner decides once: the driver may be killed before the trial has ended.
            self._storage.set_trial_user_attr(self._id(number), STOP, True)
            self._stopped.add(number)
        return number in self._stopped

    def settle(self, number: int, error: str | None = None) -> None:
        """Close a trial that has ended, in the state that it deserves; what merely was interrupted stays open.

        Args:
            number: of the trial.
            error: what it raised, if it did.
        """
        row = self._rows[number]
        if self._frozen(number).state.is_finished():
            return
        if error is not None:
            row.status, row.reason = "error", error
        elif number in self._stopped and row.status == "running":
            row.status = "stopped"
        if row.status == "running":
            return
        self._write(row)
        left = 1 - row.epoch / self.plan.epochs
        if HEALTH not in self._frozen(number).constraints:
            self._live(number).set_constraint(HEALTH, 1 + left if row.status in LOST else 0.0)
        if row.status == "finished":
            values = [row.scores[name] for name in self.plan.objectives]
            self.study.tell(row.number - 1, values)
        elif row.status in ("error", "out-of-memory"):
            self.study.tell(row.number - 1, state=TrialState.FAIL)
        else:
            self.study.tell(row.number - 1, state=TrialState.PRUNED)

    def again(self, number: int) -> None:
        """Open a trial again that ended without a fault of its own."""
        row = self._rows[number]
        row.status, row.reason = "running", ""
        self._write(row)

    def _write(self, row: TrialRow) -> None:
        kept = {name: value for name, value in dataclasses.asdict(row).items() if name not in ("number", "values")}
        identity = self._id(row.number)
        self._storage.set_trial_user_attr(identity, ROW, kept)
        for name in ("status", "epoch"):
            self._storage.set_trial_user_attr(identity, name, kept[name])

    def _seed_sampler(self, number: int) -> None:
        seed = derive_seed(self.plan.seed, "sampler", number) % 2**32
        self.study.sampler = build_sampler(self.plan.sampler, seed)

    def _filled(self, trial: optuna.Trial) -> TrialRow:
        """Draw what a trial has no value of yet."""
        row = TrialRow(number=trial.number + 1, values=self.plan.space.suggest(trial))
        self._rows[row.number] = row
        self._write(row)
        return row

    def _row_of(self, trial: FrozenTrial) -> TrialRow:
        kept = trial.user_attrs.get(ROW)
        if kept is not None:
            return TrialRow(number=trial.number + 1, values=dict(trial.params), **kept)
        # The driver was killed while it drew this one.
        self._seed_sampler(trial.number + 1)
        return self._filled(optuna.Trial(self.study, self._id(trial.number + 1)))

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _live(self, number: int) -> optuna.Trial:
        # A trial that is opened draws what its sampler models together, which here would be for nothing.
        self.study.sampler = RandomSampler()
        return optuna.Trial(self.study, self._id(number))

    def _id(self, number: int) -> int:
        # The only study of its storage: trials are numbered alike in both.
        return self._storage.get_trial_id_from_study_id_trial_number(
            self._storage.get_study_id_from_name(STUDY), number - 1
        )


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a killed driver had not finished writing; Optuna would take it and the next line for one."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
